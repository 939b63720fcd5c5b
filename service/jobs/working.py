"""What a worker does: chunks in, results out, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TypeVar

import structlog

from service.concurrency import together
from service.errors import StoreUnavailable
from service.jobs.asking import Asking, Refusal
from service.jobs.chunks import Line
from service.jobs.feeding import Feeding
from service.jobs.keys import SOURCE
from service.jobs.leases import Lease, LeaseLost, Leases, Result
from service.jobs.throttle import Throttle
from service.settings import Settings
from service.tenancy import acting_for

Done = TypeVar("Done")

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.25
_LOOK_AGAIN_S = 0.02
_STORE_RETRY_S = 1.0
_LONGEST_RENEWAL_S = 1.0  # a cancelled job is noticed at a renewal
_MOST_TRIES = 8
_SUSPECT_TRIES = 2
_MOST_HELD_BYTES = 256 * 2**20
_MOST_SOURCES = 4  # read at once: each holds a piece of its file, of Parquet a group of rows


@dataclass(slots=True, eq=False)
class _Chunk:
    """A leased chunk.

    Attributes:
        lines: those without a result when it was leased.
        unanswered: how many of them have none yet.
    """

    lease: Lease
    lines: list[Line]
    unanswered: int
    held_bytes: int


class Working:
    """Works on chunks until told to stop."""

    def __init__(
        self, leases: Leases, asking: Asking, throttle: Throttle, settings: Settings
    ) -> None:
        self._leases = leases
        self._feeding = Feeding(leases, settings)
        self._asking = asking
        self._throttle = throttle
        self._renew_every_s = min(_LONGEST_RENEWAL_S, settings.jobs.lease_s / 3)
        self._chunks: set[_Chunk] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._suspects = asyncio.Lock()
        self._recovering = asyncio.Lock()

    async def run(self, stopping: asyncio.Event, drain_s: float) -> None:
        """Works until `stopping`; then lines in work are finished, for at most `drain_s`."""
        working: set[asyncio.Task[None]] = set()
        try:
            while not stopping.is_set():
                chunk = await self._next() if self._has_room else None
                if chunk is not None:
                    task = asyncio.create_task(self._work(chunk))
                    working.add(task)
                    task.add_done_callback(working.discard)
                    if chunk.lease.chunk == SOURCE:
                        self._reading.add(task)
                        task.add_done_callback(self._reading.discard)
                else:
                    pause_s = _LOOK_EVERY_S if self._has_room else _LOOK_AGAIN_S
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), pause_s)
            self._throttle.close()
            for reading in self._reading:
                reading.cancel()
            if working:
                await asyncio.wait(working, timeout=drain_s)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    @property
    def _has_room(self) -> bool:
        """Whether a line more would be sent at once."""
        unanswered = sum(chunk.unanswered for chunk in self._chunks)
        held_bytes = sum(chunk.held_bytes for chunk in self._chunks)
        return unanswered < self._throttle.window and held_bytes < _MOST_HELD_BYTES

    async def _next(self) -> _Chunk | None:
        try:
            reading = {chunk.lease.keys for chunk in self._chunks if chunk.lease.chunk == SOURCE}
            lease = await self._leases.next(reading, sources=len(reading) < _MOST_SOURCES)
            if lease is None:
                return None
            lines = [] if lease.chunk == SOURCE else await self._leases.lines(lease)
        except LeaseLost:
            return None
        except StoreUnavailable as error:
            _log.warning("no work found", reason=error.detail)
            await asyncio.sleep(_STORE_RETRY_S)
            return None
        chunk = _Chunk(lease, lines, len(lines), sum(len(line.body) for line in lines))
        self._chunks.add(chunk)
        return chunk

    async def _work(self, chunk: _Chunk) -> None:
        """One chunk, from its lease to its end; gives it back when it cannot be finished here."""
        lease, finished = chunk.lease, False
        try:
            if lease.chunk == SOURCE:
                await self._while_held(lease, self._feeding.feed(lease))
                finished = True
            elif await self._all_answered(chunk):
                await self._leases.finish(lease)
                finished = True
        except LeaseLost:
            finished = True  # by somebody else, or nobody needs it
        except StoreUnavailable as error:
            _log.warning("a chunk is left to who comes next", reason=error.detail)
        except Exception:
            _log.exception("unforeseen error on a chunk", job=lease.keys.id, chunk=lease.chunk)
            await asyncio.sleep(_STORE_RETRY_S)  # it may well happen again
        finally:
            self._chunks.discard(chunk)
            if not finished:
                with contextlib.suppress(LeaseLost, StoreUnavailable):
                    await asyncio.shield(self._leases.release(lease))

    async def _all_answered(self, chunk: _Chunk) -> bool:
        """Whether each line has its result now; if not, this worker is stopping."""
        answering = together(self._line(chunk, line) for line in chunk.lines)
        return all(await self._while_held(chunk.lease, answering))

    async def _while_held(self, lease: Lease, work: Coroutine[None, None, Done]) -> Done:
        """Does the work, or ends it when the lease is lost."""
        renewing = asyncio.create_task(self._renew(lease))
        working = asyncio.create_task(work)
        try:
            await asyncio.wait({renewing, working}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                renewing.result()  # raises: the lease is lost
            return working.result()
        finally:
            for task in (renewing, working):
                task.cancel()
            await asyncio.gather(renewing, working, return_exceptions=True)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            with contextlib.suppress(StoreUnavailable):  # the fence decides in the end
                await self._leases.renew(lease)

    async def _line(self, chunk: _Chunk, line: Line) -> bool:
        """Whether the line has its result now; if not, this worker is stopping.

        A line that was in work when the gateway or the engine failed may be the reason. Lines
        that were so more than once are tried one at a time, so that no other fails with them.
        """
        failed = 0
        while True:
            async with self._suspects if failed >= _SUSPECT_TRIES else contextlib.nullcontext():
                if failed and not await self._recovered():
                    return False
                answer = await self._asked(chunk.lease, line)
            if answer is None:
                return False
            if isinstance(answer, Refusal):
                failed += answer.lines_own
                if failed < _MOST_TRIES:
                    continue
                answer = answer.result
            await self._keep(chunk.lease, line, answer)
            chunk.unanswered -= 1
            return True

    async def _asked(self, lease: Lease, line: Line) -> Result | Refusal | None:
        """What the gateway says, asked when the throttle allows; None when this worker stops."""
        if not await self._throttle.enter():
            return None
        sent_at = time.monotonic()
        try:
            with acting_for(lease.keys.tenant):
                answer = await self._asking.ask(lease.keys.id, line)
            if isinstance(answer, Refusal):
                self._throttle.refused(sent_at, answer.retry_after_s)
            else:
                self._throttle.succeeded()
            return answer
        finally:
            self._throttle.leave()

    async def _recovered(self) -> bool:
        """Waits until the gateway is ready; False when this worker stops before it is."""
        async with self._recovering:
            while not self._throttle.closed:
                if await self._asking.ready():
                    return True
                await asyncio.sleep(_STORE_RETRY_S)
        return False

    async def _keep(self, lease: Lease, line: Line, result: Result) -> None:
        """Keeps a result that has been paid for, however long the store is away."""
        while True:
            try:
                return await self._leases.record(lease, line, result)
            except StoreUnavailable as error:
                _log.warning("a result waits to be kept", reason=error.detail)
                await asyncio.sleep(_STORE_RETRY_S)
