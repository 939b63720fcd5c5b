"""Jobs as the gateway sees them: taken in, looked at, read out, ended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, cast
from uuid import uuid4

from service.errors import NotFound, Overloaded, StoreUnavailable
from service.jobs.chunks import Line, pack_lines, unpack_results
from service.jobs.connection import Connection
from service.jobs.keys import ACTIVE, DEADLINES, GROUP, JobKeys
from service.settings import JobSettings

JobState = Literal["queued", "running", "done", "cancelled", "failed"]
ResultOrder = Literal["input", "completed"]

DEFAULT_TENANT = "default"
_ENDED = frozenset({"done", "cancelled", "failed"})
_ID = re.compile(r"job_[0-9a-f]{32}")
_BROKEN_UPLOAD_S = 3600
_LOOK_EVERY_S = 0.5
_AT_ONCE = 500  # keys deleted or looked for, or chunk numbers read, in one command


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job has come.

    Attributes:
        total: its lines, blank ones left out; grows while a source is being read.
        eta_s: seconds until it is done if it goes on as it has; None while nobody can tell.
        reason: why it failed.
    """

    id: str
    state: JobState
    total: int
    ok: int
    abstain: int
    error: int
    chunks: int
    eta_s: float | None
    reason: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in _ENDED


class JobStore:
    """Jobs on Redis. A tenant sees its own alone."""

    def __init__(self, connection: Connection, settings: JobSettings) -> None:
        self._connection = connection
        self._settings = settings

    async def create(self, tenant: str = DEFAULT_TENANT) -> JobKeys:
        """A new job that nobody knows of yet; `add` its chunks, then `publish` it.

        Raises:
            Overloaded: as many jobs as may wait do.
        """
        await self._check_room()
        keys = JobKeys(tenant, f"job_{uuid4().hex}")
        await self._put_off(keys)
        await self._ask(self._redis.hset(keys.job, "state", "uploading"))
        return keys

    async def add(self, keys: JobKeys, chunk: int, lines: list[Line]) -> None:
        """Keeps one chunk of an upload, and how many there are for `discard`."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.set(keys.lines(chunk), await pack_lines(lines))
        pipeline.hset(keys.job, "chunks", chunk + 1)
        await self._ask(pipeline.execute())
        await self._put_off(keys)

    async def publish(self, keys: JobKeys, lines: int, chunks: int) -> JobStatus:
        """Hands a complete upload to the workers.

        Raises:
            StoreUnavailable: Redis has lost a part of it; `discard` what is left.
        """
        state = await self._ask(self._redis.hget(keys.job, "state"))
        lost = state == b"uploading" and not await self._has_all(keys, chunks)
        if lost or state is None:
            raise StoreUnavailable("a part of the upload was lost; send it again")
        await self._connection.step(
            "publish",
            [keys.job, keys.chunks, ACTIVE, DEADLINES],
            [keys.member, GROUP, lines, chunks, self._settings.unfinished_s],
        )
        return await self.status(keys.id, keys.tenant)

    async def open(self, source: str, tenant: str = DEFAULT_TENANT) -> JobStatus:
        """A new job whose lines a worker reads from a source.

        Raises:
            Overloaded: as many jobs as may wait do.
        """
        await self._check_room()
        keys = JobKeys(tenant, f"job_{uuid4().hex}")
        await self._connection.step(
            "open",
            [keys.job, keys.chunks, ACTIVE, DEADLINES],
            [keys.member, GROUP, source, self._settings.unfinished_s],
        )
        return await self.status(keys.id, tenant)

    async def status(self, job_id: str, tenant: str = DEFAULT_TENANT) -> JobStatus:
        """How far the job has come.

        Raises:
            NotFound: the tenant has none with this id, or no longer.
        """
        keys = self._keys(job_id, tenant)
        found: dict[bytes, bytes] = await self._ask(self._redis.hgetall(keys.job))
        if found.get(b"state", b"uploading") == b"uploading":
            raise NotFound("there is no such job, or no longer")
        now, _ = await self._ask(self._redis.time())
        return _status(job_id, found, now)

    async def cancel(self, job_id: str, tenant: str = DEFAULT_TENANT) -> JobStatus:
        """Ends the job: workers stop what they do of it. One that has ended stays as it is.

        Raises:
            NotFound: the tenant has none with this id, or no longer.
        """
        keys = self._keys(job_id, tenant)
        await self.status(job_id, tenant)
        await self._connection.step(
            "end",
            [keys.job, keys.chunks, keys.fences, ACTIVE, DEADLINES],
            [keys.member, self._settings.retention_s, "cancelled", ""],
        )
        status = await self.status(job_id, tenant)
        if status.state == "cancelled":  # by this step, or by one before that was not told
            await self._unlink([keys.lines(chunk) for chunk in range(status.chunks)])
        return status

    async def results(
        self, status: JobStatus, order: ResultOrder, tenant: str = DEFAULT_TENANT
    ) -> AsyncGenerator[bytes]:
        """NDJSON, a chunk at a time, as chunks are finished; ends when the job has.

        Raises:
            NotFound: it was forgotten meanwhile.
        """
        keys = self._keys(status.id, tenant)
        given: set[int] = set()
        if order == "completed":
            async with aclosing(self._finished(keys)) as finished:
                async for chunk in finished:
                    given.add(chunk)
                    yield await self._chunk_results(keys, chunk) or b""
        chunk = 0
        while (found := await self._chunk_results(keys, chunk)) is not None:
            if chunk not in given:
                yield found
            chunk += 1

    async def discard(self, keys: JobKeys) -> None:
        """Forgets a job and all that is kept of it."""
        chunks = int(await self._ask(self._redis.hget(keys.job, "chunks")) or 0)
        names = [keys.chunks, keys.fences, keys.completed]
        for chunk in range(chunks):
            names += [keys.lines(chunk), keys.results(chunk), keys.packed(chunk)]
        await self._ask(self._redis.srem(ACTIVE, keys.member))
        await self._unlink(names)
        await self._ask(self._redis.unlink(keys.job))
        await self._ask(self._redis.zrem(DEADLINES, keys.member))

    async def sweep(self) -> int:
        """Forgets jobs whose time has come; says how many."""
        now, _ = await self._ask(self._redis.time())
        late = await self._ask(self._redis.zrangebyscore(DEADLINES, 0, now, start=0, num=100))
        for member in late:
            await self.discard(JobKeys.of_member(member))
        return len(late)

    async def unfinished(self) -> tuple[int, int]:
        """How many jobs have not ended, and how many of their lines have no result; of all tenants.

        A source counts as far as it has been read.
        """
        members = await self._ask(self._redis.smembers(ACTIVE))
        pipeline = self._redis.pipeline(transaction=False)
        for keys in map(JobKeys.of_member, members):
            pipeline.hmget(keys.job, "total", "ok", "abstain", "error")
        counts = await self._ask(pipeline.execute()) if members else []
        numbers = [[int(number or 0) for number in found] for found in counts]
        return len(members), sum(total - sum(done) for total, *done in numbers)

    async def _check_room(self) -> None:
        if await self._ask(self._redis.scard(ACTIVE)) >= self._settings.active:
            raise Overloaded("too many jobs have not ended; come back later", retry_after_s=60)

    async def _finished(self, keys: JobKeys) -> AsyncGenerator[int]:
        """Chunks in the order in which they are finished, until the job ends."""
        read = 0
        while True:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hget(keys.job, "state")
            pipeline.lrange(keys.completed, read, read + _AT_ONCE - 1)
            state, numbers = await self._ask(pipeline.execute())
            for number in numbers:
                yield int(number)
            read += len(numbers)
            if not numbers:
                if _has_ended(state):
                    return
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _chunk_results(self, keys: JobKeys, chunk: int) -> bytes | None:
        """A chunk's results: once it is finished, or as many as there were when the job ended.

        None when the job has ended and never had this chunk.
        """
        while True:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hmget(keys.job, "state", "chunks")
            pipeline.get(keys.packed(chunk))
            pipeline.hgetall(keys.results(chunk))
            (state, chunks), packed, loose = await self._ask(pipeline.execute())
            if packed is not None:
                return await unpack_results(packed)
            if _has_ended(state):
                if chunk >= int(chunks):
                    return None
                return b"".join(loose[number] + b"\n" for number in sorted(loose, key=int))
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _has_all(self, keys: JobKeys, chunks: int) -> bool:
        """Whether each chunk is there: a Redis that fell may lack what it was given last."""
        names = [keys.lines(chunk) for chunk in range(chunks)]
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            if await self._ask(self._redis.exists(*some)) < len(some):
                return False
        return True

    async def _put_off(self, keys: JobKeys) -> None:
        now, _ = await self._ask(self._redis.time())
        await self._ask(self._redis.zadd(DEADLINES, {keys.member: now + _BROKEN_UPLOAD_S}))

    async def _unlink(self, names: list[str]) -> None:
        for start in range(0, len(names), _AT_ONCE):
            await self._ask(self._redis.unlink(*names[start : start + _AT_ONCE]))

    def _keys(self, job_id: str, tenant: str) -> JobKeys:
        if not _ID.fullmatch(job_id):
            raise NotFound("there is no such job, or no longer")
        return JobKeys(tenant, job_id)

    @property
    def _redis(self) -> Any:
        return self._connection.redis

    async def _ask(self, command: Any) -> Any:
        return await self._connection.ask(command)


def _has_ended(state: bytes | None) -> bool:
    if state is None:
        raise NotFound("the job was forgotten meanwhile")
    return state.decode() in _ENDED


def _status(job_id: str, found: dict[bytes, bytes], now: int) -> JobStatus:
    total, ok, abstain, error, chunks = (
        int(found.get(name, 0)) for name in (b"total", b"ok", b"abstain", b"error", b"chunks")
    )
    state = found[b"state"].decode()
    done, eta_s = ok + abstain + error, None
    if state in _ENDED:
        eta_s = 0.0
    elif done and b"sealed" in found:
        eta_s = max(0, now - int(found[b"started_s"])) / done * (total - done)
    reason = found.get(b"reason", b"").decode() or None
    counts = (total, ok, abstain, error, chunks)
    return JobStatus(job_id, cast("JobState", state), *counts, eta_s, reason)
