"""A Service without a cluster: each connection goes to one of the pods that are ready."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence

Address = tuple[str, int]
_PIECE = 65536


class Balancer:
    """Listens, and hands connections on in turn; those that are made stay where they are.

    Args:
        listening: where.
        ready: who may be given one now.
    """

    def __init__(self, listening: Address, ready: Callable[[], Sequence[Address]]) -> None:
        self._listening = listening
        self._ready = ready
        self._turn = itertools.count()
        # asyncio's streams refer to what waits for them weakly: it would be collected as garbage.
        self._works: set[asyncio.Task[None]] = set()
        self._begun = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), daemon=True, name="service"
        )

    def start(self) -> None:
        """Returns when it listens."""
        self._thread.start()
        self._begun.wait()

    def stop(self) -> None:
        """Breaks every connection."""
        if self._begun.is_set():
            self._stop()
            self._thread.join()

    async def _serve(self) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        serving = await asyncio.start_server(self._connected, *self._listening, backlog=1024)
        self._begun.set()
        await stopping.wait()
        serving.close()

    def _connected(self, caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter) -> None:
        work = asyncio.create_task(self._handed_on(caller, to_caller))
        self._works.add(work)
        work.add_done_callback(self._works.discard)

    async def _handed_on(
        self, caller: asyncio.StreamReader, to_caller: asyncio.StreamWriter
    ) -> None:
        with contextlib.closing(to_caller), contextlib.suppress(OSError, asyncio.CancelledError):
            ready = self._ready()
            if not ready:
                return
            pod, to_pod = await asyncio.open_connection(*ready[next(self._turn) % len(ready)])
            with contextlib.closing(to_pod):
                await asyncio.gather(_passed(caller, to_pod), _passed(pod, to_caller))


async def _passed(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Passes on what comes, and that nothing more comes."""
    try:
        with contextlib.suppress(OSError):
            while piece := await source.read(_PIECE):
                target.write(piece)
                await target.drain()
    finally:
        with contextlib.suppress(OSError):
            target.write_eof()
