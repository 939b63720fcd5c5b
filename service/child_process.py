"""Child processes that do not outlive the gateway, whatever becomes of it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Has Linux kill this process when the thread that started it ends. Call it in the child.

    With a signal that nobody can handle: one is sent for each thread of a parent that dies, and
    vLLM's handler of SIGTERM, interrupted by a second one, waits for itself forever.

    Args:
        parent_pid: the process that started this one; if it is gone already, so is this one.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def end_with_spawner() -> None:
    """`end_with_parent` for a process that multiprocessing started; nothing in any other."""
    spawner = multiprocessing.parent_process()
    if spawner is not None and spawner.pid is not None:
        end_with_parent(spawner.pid)
