"""How much is worked on at once, and who waits.

A lease is taken before any work is done on a comparison and given back by
leaving its ``async with``. Waiters are served in order, interactive ones first.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from service.engines import Priority
from service.errors import Draining, Overloaded
from service.metrics import Metrics
from service.settings import AdmissionSettings

_RANKS: dict[Priority, int] = {"interactive": 0, "batch": 1}


class Admission:
    """A bounded number of leases and a bounded number of waiters."""

    def __init__(self, settings: AdmissionSettings, metrics: Metrics) -> None:
        self._most_running = settings.running
        self._most_waiting = settings.waiting
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._running = 0
        self._metrics = metrics
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @asynccontextmanager
    async def lease(self, priority: Priority) -> AsyncGenerator[float]:
        """Holds a place; yields the seconds it took to get one.

        Raises:
            Overloaded: the queue is full.
            Draining: the process is stopping.
        """
        self.check()
        began = time.monotonic()
        await self._acquire(priority)
        try:
            yield time.monotonic() - began
        finally:
            self._release()

    def check(self) -> None:
        """Raises `Draining` when nothing new is taken."""
        if self.draining:
            raise Draining("this gateway is stopping; ask another one")

    async def drained(self) -> None:
        """Returns when no lease is held and nobody waits."""
        await self._idle.wait()

    async def _acquire(self, priority: Priority) -> None:
        if self._running < self._most_running:
            self._running += 1
            self._observe()
        elif len(self._waiting) >= self._most_waiting:
            raise Overloaded("too many requests are waiting; come back in a moment")
        else:
            await self._wait(priority)

    async def _wait(self, priority: Priority) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (_RANKS[priority], next(self._arrivals), turn)
        heapq.heappush(self._waiting, place)
        self._observe()
        try:
            await turn
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
                heapq.heapify(self._waiting)
                self._observe()
            else:  # the turn came in the same moment as the cancellation
                self._release()
            raise

    def _release(self) -> None:
        """Hands the place to the first in the queue, or gives it back."""
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                break
        else:
            self._running -= 1
        self._observe()

    def _observe(self) -> None:
        self._metrics.inflight.set(self._running)
        self._metrics.queued.set(len(self._waiting))
        if self._running:
            self._idle.clear()
        else:
            self._idle.set()
