"""How much is worked on at once, and who waits.

A lease is taken before any work is done on a comparison and given back by
leaving its ``async with``. Waiters are served in order, interactive ones first.
Nobody waits who would not be served in time: at three times what can be done a
queue of patient callers would otherwise do nothing but work that comes too late.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext

from service.engines import Priority
from service.errors import Draining, Overloaded
from service.metrics import Metrics
from service.settings import AdmissionSettings

_RANKS: dict[Priority, int] = {"interactive": 0, "batch": 1}
_DOUBT, _MOST_DOUBT = 1.25, 4.0  # who would be served at the last moment is refused now
_MORE_DOUBT, _LESS_DOUBT = 1.1, 0.999  # at rest while one in a hundred of those who wait is late
_WEIGHT = 0.05  # of the newest lease in the mean time that one is held
_LONGEST_RETRY_S = 60

_Place = tuple[int, int, "asyncio.Future[None]"]


class Admission:
    """A bounded number of leases and a bounded number of waiters."""

    def __init__(
        self,
        settings: AdmissionSettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._most_running = settings.running
        self._most_waiting = settings.waiting
        self._longest_wait_s = settings.queue_s
        self._waiting: list[_Place] = []
        self._arrivals = itertools.count()
        self._running = 0
        self._held_s: float | None = None
        self._doubt = _DOUBT
        self._metrics = metrics
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @asynccontextmanager
    async def lease(self, priority: Priority, within_s: float = math.inf) -> AsyncGenerator[float]:
        """Holds a place; yields the seconds it took to get one.

        Args:
            priority: who is served first.
            within_s: what time the caller has left, for waiting and for the work.

        Raises:
            Overloaded: the queue is full, or longer than the caller's time, or an interactive
                caller needed the place of a batch.
            Draining: the process is stopping.
        """
        self.check()
        began = self._clock()
        waits = self._running >= self._most_running
        if waits:
            self._check_hope(priority, within_s)
        with self._doubting(began, within_s) if waits else nullcontext():
            await self._acquire(priority)
            self._metrics.admission.labels("admitted").inc()
            admitted = self._clock()
            try:
                yield admitted - began
            finally:
                self._learn(self._clock() - admitted)
                self._release()

    def check(self) -> None:
        """Raises `Draining` when nothing new is taken."""
        if self.draining:
            raise Draining("this gateway is stopping; ask another one")

    def check_room(self) -> None:
        """Refuses, before its body is read, what has no chance of a place.

        Raises:
            Overloaded, Draining
        """
        self.check()
        if self._is_full and not self._last_of_batch():
            self._refuse("full")

    async def drained(self) -> None:
        """Returns when no lease is held and nobody waits."""
        await self._idle.wait()

    @property
    def _is_full(self) -> bool:
        return self._running >= self._most_running and len(self._waiting) >= self._most_waiting

    def _check_hope(self, priority: Priority, within_s: float) -> None:
        """Refuses who cannot wait, or would wait in vain; makes room for who needs it more."""
        if self._is_full and not (priority == "interactive" and self._displace()):
            self._refuse("full")
        if self._doubt * self._expected_s(priority) > within_s:
            self._refuse("hopeless")

    async def _acquire(self, priority: Priority) -> None:
        if self._running < self._most_running:
            self._running += 1
            self._observe()
        else:
            await self._wait(priority)

    @contextmanager
    def _doubting(self, began: float, within_s: float) -> Generator[None]:
        """Learns from one that waits how far what is expected of the queue can be trusted.

        Where it gets slower as it gets longer, many would be let in and come too late. Who has
        time in plenty says nothing about that.
        """
        try:
            yield
        finally:
            took_s = self._clock() - began
            if took_s >= within_s:
                self._doubt = min(_MOST_DOUBT, self._doubt * _MORE_DOUBT)
            elif took_s > within_s / 2:
                self._doubt = max(_DOUBT, self._doubt * _LESS_DOUBT)

    def _refuse(self, outcome: str) -> None:
        self._metrics.admission.labels(outcome).inc()
        raise _overloaded(self._expected_s("interactive"))

    def _expected_s(self, priority: Priority) -> float:
        """Until one who comes now is served and done; 0 while nothing is known."""
        ahead = sum(rank <= _RANKS[priority] for rank, _, _ in self._waiting)
        turns = (ahead + 1) / self._most_running
        return (turns + 1) * (self._held_s or 0.0)

    def _learn(self, held_s: float) -> None:
        if self._held_s is None:
            self._held_s = held_s
        self._held_s += _WEIGHT * (held_s - self._held_s)

    def _last_of_batch(self) -> _Place | None:
        last = max(self._waiting, default=None)
        return last if last is not None and last[0] == _RANKS["batch"] else None

    def _displace(self) -> bool:
        """Sends away the batch work that came last; False when none waits."""
        place = self._last_of_batch()
        if place is None:
            return False
        self._leave(place)
        self._metrics.admission.labels("displaced").inc()
        place[2].set_exception(_overloaded(self._expected_s("batch")))
        return True

    async def _wait(self, priority: Priority) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (_RANKS[priority], next(self._arrivals), turn)
        heapq.heappush(self._waiting, place)
        self._observe()
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await turn
        except TimeoutError:
            self._gave_up(place, "too_long")
            raise _overloaded(self._expected_s(priority)) from None
        except asyncio.CancelledError:
            self._gave_up(place, "left")
            raise

    def _gave_up(self, place: _Place, outcome: str) -> None:
        self._metrics.admission.labels(outcome).inc()
        if place in self._waiting:
            self._leave(place)
        elif not place[2].cancelled() and place[2].exception() is None:
            self._release()  # the turn came in the same moment

    def _leave(self, place: _Place) -> None:
        self._waiting.remove(place)
        heapq.heapify(self._waiting)
        self._observe()

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


def _overloaded(expected_s: float) -> Overloaded:
    return Overloaded(
        "more is waiting than would be done in time; come back in a moment",
        retry_after_s=max(1, min(_LONGEST_RETRY_S, math.ceil(expected_s))),
    )
