"""Child processes that do not outlive the gateway, whatever becomes of it."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int, sent: signal.Signals = signal.SIGTERM) -> None:
    """Has Linux end this process when the thread that started it ends. Call it in the child.

    Args:
        parent_pid: the process that started this one; if it is gone already, so is this one.
        sent: the signal; it comes once for each thread of a parent that dies.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sent)
    if os.getppid() != parent_pid:
        os._exit(1)


def end_with_spawner() -> None:
    """`end_with_parent` for a process that multiprocessing started; nothing in any other.

    By a signal that nobody can handle: vLLM's handler of SIGTERM, interrupted by a second one,
    waits for itself forever.
    """
    spawner = multiprocessing.parent_process()
    if spawner is not None and spawner.pid is not None:
        end_with_parent(spawner.pid, signal.SIGKILL)
