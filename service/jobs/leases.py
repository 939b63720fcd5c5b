"""Chunks as a worker sees them: leased, renewed, recorded line by line, finished.

A lease that is not renewed runs out, and the next worker that looks takes the chunk over. Its
fence, one higher, makes whatever the former holder still sends without effect: a line has one
result, kept before the chunk leaves the stream.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from service.errors import ServiceError, StoreUnavailable
from service.jobs.chunks import Line, count_lines, pack_lines, pack_results, unpack_lines
from service.jobs.connection import Connection
from service.jobs.keys import ACTIVE, DEADLINES, GROUP, JobKeys
from service.settings import JobSettings

_JOBS_LOOKED_AT = 16


class LeaseLost(Exception):
    """The job has ended, or somebody else has the chunk: nothing more is to be done on it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A chunk that is this worker's for now.

    Attributes:
        entry: its place in the job's stream.
        fence: which of the chunk's leases this is.
    """

    keys: JobKeys
    entry: bytes
    chunk: int
    fence: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a line.

    Attributes:
        outcome: ``ok``, ``abstain`` or ``error``; as it is counted.
        text: one line of JSON.
    """

    outcome: str
    text: bytes


@dataclass(frozen=True, slots=True)
class KnownSource:
    """The source of a job.

    Attributes:
        chunks: how many of its chunks the job has.
    """

    url: str
    chunks: int


class Leases:
    """The part of Redis that workers share.

    Args:
        consumer: this worker's name; no two have the same.
    """

    def __init__(self, connection: Connection, settings: JobSettings, consumer: str) -> None:
        self._connection = connection
        self._settings = settings
        self._consumer = consumer
        self._lease_ms = int(settings.lease_s * 1000)

    async def next(
        self, reading: Collection[JobKeys] = (), *, sources: bool = True
    ) -> Lease | None:
        """A chunk to work on, of any job with the same likelihood; None when there is none.

        Args:
            reading: jobs whose sources this worker reads. They are always looked at: where
                many jobs wait to be read, few of any others would have a chunk.
            sources: whether it may be a source to be read.

        Raises:
            StoreUnavailable: see `Connection`; so do all others.
        """
        redis = self._connection.redis
        members = await self._connection.ask(redis.srandmember(ACTIVE, _JOBS_LOOKED_AT))
        jobs = list({*map(JobKeys.of_member, members), *reading})
        random.shuffle(jobs)
        for keys in jobs:
            found = await self._connection.step(
                "lease",
                [keys.job, keys.chunks, keys.fences],
                [GROUP, self._consumer, self._lease_ms, int(sources)],
            )
            if found is not None:
                return Lease(keys, *found)
        return None

    async def lines(self, lease: Lease) -> list[Line]:
        """The chunk's lines that have no result yet.

        Lines that are gone although the chunk is to be worked on are lost, and so is the job.

        Raises:
            LeaseLost: the lines are gone, for the job is over.
        """
        redis = self._connection.redis
        packed = await self._connection.ask(redis.get(lease.keys.lines(lease.chunk)))
        if packed is None:
            await self.fail(lease, StoreUnavailable("lines of the job were lost; send it again"))
            raise LeaseLost
        known = await self._connection.ask(redis.hkeys(lease.keys.results(lease.chunk)))
        done = {int(number) for number in known}
        return [line for line in await unpack_lines(packed) if line.number not in done]

    async def record(self, lease: Lease, line: Line, result: Result) -> None:
        """Keeps a line's result; a second one for the same line changes nothing.

        Raises:
            LeaseLost: it came too late.
        """
        keys = [lease.keys.job, lease.keys.fences, lease.keys.results(lease.chunk)]
        shown = [lease.chunk, lease.fence, line.number, result.outcome, result.text]
        await self._held("record", keys, shown)

    async def renew(self, lease: Lease) -> None:
        """Starts the lease's time anew.

        Raises:
            LeaseLost: it came too late, or the job was cancelled.
        """
        await self._claim(lease, idle_ms=0)

    async def release(self, lease: Lease) -> None:
        """Gives an unfinished chunk back at once.

        Raises:
            LeaseLost: that was not necessary any more.
        """
        await self._claim(lease, idle_ms=self._lease_ms)

    async def finish(self, lease: Lease) -> None:
        """Puts away a chunk of which each line has its result; the last one ends the job.

        Raises:
            LeaseLost: it came too late, or Redis has lost results: who has it next makes them.
        """
        keys, chunk = lease.keys, lease.chunk
        pipeline = self._connection.redis.pipeline(transaction=False)
        pipeline.get(keys.lines(chunk))
        pipeline.hgetall(keys.results(chunk))
        lines, found = await self._connection.ask(pipeline.execute())
        if lines is None:
            raise LeaseLost
        packed = await pack_results(found[number] for number in sorted(found, key=int))
        names = [keys.job, keys.chunks, keys.fences, keys.lines(chunk), keys.results(chunk)]
        names += [keys.packed(chunk), keys.completed, ACTIVE, DEADLINES]
        shown = [chunk, lease.fence, GROUP, lease.entry, packed, keys.member]
        shown += [self._settings.retention_s, await count_lines(lines)]
        await self._held("finish", names, shown)

    async def source(self, lease: Lease) -> KnownSource:
        """What is to be read, of a lease whose `chunk` is `SOURCE`.

        Raises:
            LeaseLost: the job is gone.
        """
        url, chunks = await self._fields(lease, "source", "chunks")
        if url is None:
            raise LeaseLost
        return KnownSource(url.decode(), int(chunks or 0))

    async def pin(self, lease: Lease, version: str) -> str:
        """The version of the source that was first read: this one, or an earlier worker's.

        Raises:
            LeaseLost: it came too late, or the job was cancelled.
        """
        keys = [lease.keys.job, lease.keys.fences]
        found: bytes = await self._held("pin", keys, [lease.fence, version])
        return found.decode()

    async def extend(self, lease: Lease, chunk: int, lines: list[Line]) -> None:
        """Adds a chunk to the job; one that is there already stays as it is.

        Raises:
            LeaseLost: it came too late, the job was cancelled, or Redis has lost a chunk before it.
        """
        keys = [lease.keys.job, lease.keys.chunks, lease.keys.fences, lease.keys.lines(chunk)]
        await self._held("extend", keys, [lease.fence, chunk, len(lines), await pack_lines(lines)])

    async def ahead(self, lease: Lease) -> int:
        """How many chunks the job has that are not finished."""
        chunks, finished = await self._fields(lease, "chunks", "finished")
        return int(chunks or 0) - int(finished or 0)

    async def seal(self, lease: Lease, chunks: int) -> None:
        """Says that the source has been read to its end, and how many chunks it has.

        Raises:
            LeaseLost: it came too late, the job was cancelled, or Redis has lost some of them.
        """
        keys = [lease.keys.job, lease.keys.chunks, lease.keys.fences, ACTIVE, DEADLINES]
        shown = [lease.fence, GROUP, lease.entry, lease.keys.member, self._settings.retention_s]
        await self._held("seal", keys, [*shown, chunks])

    async def fail(self, lease: Lease, error: ServiceError) -> None:
        """Ends the job: its source cannot be read, or its lines are gone.

        Raises:
            LeaseLost: it came too late, or the job was cancelled.
        """
        keys = [lease.keys.job, lease.keys.chunks, lease.keys.fences, ACTIVE, DEADLINES]
        shown = [lease.keys.member, self._settings.retention_s, "failed", error.detail]
        await self._held("end", keys, [*shown, lease.chunk, lease.fence])

    async def _fields(self, lease: Lease, *names: str) -> list[bytes | None]:
        return await self._connection.ask(self._connection.redis.hmget(lease.keys.job, *names))

    async def _claim(self, lease: Lease, *, idle_ms: int) -> None:
        keys = [lease.keys.job, lease.keys.chunks, lease.keys.fences]
        shown = [lease.chunk, lease.fence, GROUP, self._consumer, lease.entry, idle_ms]
        await self._held("renew", keys, shown)

    async def _held(self, step: str, keys: list[str], shown: list[str | int | bytes]) -> Any:
        """What the step returns, which is something as long as the lease is held."""
        if not (found := await self._connection.step(step, keys, shown)):
            raise LeaseLost
        return found
