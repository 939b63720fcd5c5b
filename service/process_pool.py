"""Processes for work on what strangers sent: each held to CPU time and memory, and replaced.

One that stands still is replaced too: a library that runs out of memory in the wrong place may wait
for itself forever, and uses no CPU time while it does.

One thread of this process looks after one child and gives it a task at a time, so that a child
that dies takes nothing with it but the task that killed it.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import pickle
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

import structlog

from service.child_process import end_with_spawner

_log = structlog.get_logger(__name__)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

CPU_S = 10
"""A task's, where it says nothing else; only what was made to be slow needs as much."""
MEMORY_BYTES = 2**30
"""What a child may take beside what it has when it is ready."""

STILL_S = 5.0
"""For how long a child may have a task and do nothing."""

_LOOK_EVERY_S = 0.5
_LONGEST = 12
"""Times its CPU time: how long a task may take on a machine that is busy with others."""
_TRIES = 3
_SOMEBODY_ELSES = (-signal.SIGKILL, -signal.SIGTERM)
_SPAWN = multiprocessing.get_context("spawn")


class Refused(Exception):
    """What a task has to say to whoever sent its input; raised by tasks."""


class TaskFailed(Exception):
    """A task raised something else, or its child died of it. Says what, for the log alone."""


class TaskLost(TaskFailed):
    """Its children were ended by somebody else: that says nothing about the task."""


@dataclass(frozen=True, slots=True)
class _Terms:
    cpu_s: float
    memory_bytes: int
    imports: tuple[str, ...]
    still_s: float


class _StandsStill(Exception):
    """A child has a task and does nothing, or makes no end of it."""


class ProcessPool:
    """Runs functions of importable modules in child processes.

    Args:
        processes: children at most; absent: half the machine's cores, 2 to 4.
        cpu_s: of one task.
        memory_bytes: of one child, beside what an idle one has.
        imports: what a child imports before it is held to these. OpenBLAS, for one, asks for
            memory again and again, for ever, when it is loaded where there is too little.
        still_s: how long one may do nothing about its task.
    """

    def __init__(
        self,
        processes: int | None = None,
        *,
        cpu_s: float = CPU_S,
        memory_bytes: int = MEMORY_BYTES,
        imports: tuple[str, ...] = (),
        still_s: float = STILL_S,
    ) -> None:
        count = processes or max(2, min(4, (os.cpu_count() or 2) // 2))
        self._terms = _Terms(cpu_s, memory_bytes, imports, still_s)
        self._children: set[_Child] = set()
        self._own = threading.local()
        self._closed = False
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="child")
        for _ in range(count):  # a child takes its time to start: not the first task's
            self._threads.submit(self._call, partial(int), cpu_s)

    async def run(
        self,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """Calls the function in a child. A caller that is cancelled leaves a begun task running.

        Raises:
            Refused: raised by the function.
            TaskFailed: it raised another exception, or took more than it may.
        """
        return await self.run_for(self._terms.cpu_s, function, *args, **kwargs)

    async def run_for(
        self,
        cpu_s: float,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result:
        """The same with another bound on CPU time."""
        call = partial(function, *args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, call, cpu_s)

    async def close(self) -> None:
        """Ends the children, whatever they are at."""
        self._closed = True
        for child in [*self._children]:
            child.end()
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    def _call(self, call: Callable[[], Any], cpu_s: float) -> Any:
        for _ in range(_TRIES):
            if self._closed:
                break
            child = self._child()
            try:
                return child.call(call, cpu_s)
            except _StandsStill:
                self._children.discard(child)
                child.end()
                _log.warning("a child process stood still")
                raise TaskFailed("its process stood still") from None
            except (EOFError, OSError):
                self._children.discard(child)
                ended = child.end()
                _log.warning("a child process died", status=ended)
                if ended not in _SOMEBODY_ELSES:
                    raise TaskFailed(f"its process ended with {ended}") from None
        raise TaskLost("its process was ended again and again")

    def _child(self) -> _Child:
        """This thread's."""
        child: _Child | None = getattr(self._own, "child", None)
        if child is None or child not in self._children:
            self._own.child = child = _Child(self._terms)
            self._children.add(child)
        return child


class _Child:
    """One process, and this side of the pipe to it."""

    def __init__(self, terms: _Terms) -> None:
        self._terms = terms
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, terms), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, call: Callable[[], Any], cpu_s: float) -> Any:
        """Raises EOFError or OSError when the process is gone, _StandsStill when it is stuck."""
        self._pipe.send(cpu_s)
        self._pipe.send(call)
        self._wait(cpu_s)
        result, failed = self._pipe.recv()
        if failed is not None:
            raise failed
        return result

    def _wait(self, cpu_s: float) -> None:
        """Until it answers or is gone.

        By looks and not by the clock: a machine that was paused as a whole is no reason.
        """
        looks, most_looks = 0, _LONGEST * cpu_s / _LOOK_EVERY_S
        still, used = 0, -1
        while not self._pipe.poll(_LOOK_EVERY_S):
            before, used = used, self._cpu_ticks()
            looks += 1
            still = still + 1 if used == before else 0
            if still * _LOOK_EVERY_S >= self._terms.still_s or looks >= most_looks:
                raise _StandsStill

    def _cpu_ticks(self) -> int:
        """What all its threads have used."""
        with open(f"/proc/{self._process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def end(self) -> int | None:
        """Ends it if it runs; how it ended."""
        self._process.join(0.5)  # one that died by itself is about to say how
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        return self._process.exitcode


def _serve(pipe: Connection, terms: _Terms) -> None:
    """A child's life: a task, an answer, until the other side hangs up."""
    end_with_spawner()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the gateway decides
    for module in terms.imports:
        importlib.import_module(module)
    with open("/proc/self/statm") as file:
        most = int(file.read().split()[0]) * resource.getpagesize() + terms.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            cpu_s = pipe.recv()
            call = pipe.recv_bytes()
        except EOFError:
            return
        # By default SIGPROF ends the process, also in the middle of a decoder's C code.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        answer = _answered(call)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(answer)


def _answered(call: bytes) -> tuple[Any, Exception | None]:
    try:
        return pickle.loads(call)(), None
    except Refused as refused:
        return None, refused
    except Exception as error:  # MemoryError too; by its name, for not every exception can travel
        return None, TaskFailed(type(error).__name__)
