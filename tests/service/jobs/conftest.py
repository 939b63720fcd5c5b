"""Job stores and workers on the tests' Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from service.jobs.asking import Asking
from service.jobs.chunks import chunked
from service.jobs.connection import Connection
from service.jobs.job_store import JobStatus, JobStore
from service.jobs.leases import Leases
from service.jobs.throttle import Throttle
from service.jobs.working import Working
from service.settings import JobSettings, Settings, WorkerSettings


@pytest.fixture
def settings() -> JobSettings:
    """Leases that no slow machine lets run out."""
    return JobSettings(lease_s=3600)


@pytest.fixture
async def connection(redis_url: str) -> AsyncGenerator[Connection]:
    made = Connection(redis_url)
    yield made
    await made.close()


@pytest.fixture
def moment(connection: Connection) -> Callable[[], Awaitable[Callable[[], Awaitable[None]]]]:
    """Remembers what Redis has now, and can take it back there, as a power cut does."""

    async def remember() -> Callable[[], Awaitable[None]]:
        kept = {name: await connection.redis.dump(name) for name in await connection.redis.keys()}

        async def go_back() -> None:
            await connection.redis.flushall()
            for name, value in kept.items():
                await connection.redis.restore(name, 0, value)

        return go_back

    return remember


@pytest.fixture
def store(connection: Connection, settings: JobSettings) -> JobStore:
    return JobStore(connection, settings)


@pytest.fixture
def leases(connection: Connection, settings: JobSettings) -> Callable[[str], Leases]:
    """A worker's view, by the worker's name."""
    return lambda consumer: Leases(connection, settings, consumer)


def numbered(count: int, **changes: Any) -> list[bytes]:
    asked = {"responses": ["One.", "Two."]} | changes
    return [
        json.dumps({"id": f"n{n}", "question": f"question {n}"} | asked).encode()
        for n in range(1, count + 1)
    ]


async def pieces(data: bytes, size: int = 1000) -> AsyncGenerator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture
def started(store: JobStore) -> Callable[..., Any]:
    """Starts a job of some lines."""

    async def start(lines: list[bytes], tenant: str = "default") -> JobStatus:
        keys = await store.create(tenant)
        count = chunks = 0
        upload = pieces(b"\n".join(lines))
        async for chunk in chunked(upload, line_bytes=10_000, most_bytes=2**30, most_lines=10**6):
            await store.add(keys, chunks, chunk)
            count, chunks = count + len(chunk), chunks + 1
        return await store.publish(keys, count, chunks)

    return start


Answering = Callable[[httpx.Request], Any]


def judged(request: httpx.Request, status: str = "ok") -> httpx.Response:
    """As much of a gateway's answer as a worker looks at."""
    asked = json.loads(request.content)
    return httpx.Response(200, json={"id": asked["id"], "status": status})


def refused(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "status": status}, headers=headers)


@pytest.fixture
def working(connection: Connection) -> Callable[..., Any]:
    """A worker that asks a function instead of a gateway."""

    @asynccontextmanager
    async def run(
        answering: Answering,
        name: str = "one",
        in_flight: int = 64,
        **changes: Any,
    ) -> AsyncGenerator[Throttle]:
        asking = Asking(WorkerSettings(in_flight=in_flight), httpx.MockTransport(answering))
        throttle = Throttle(in_flight)
        stopping = asyncio.Event()
        own = Settings(**{"engine": "scripted"} | changes)
        worker = Working(Leases(connection, own.jobs, name), asking, throttle, own)
        task = asyncio.create_task(worker.run(stopping, 5.0))
        try:
            yield throttle
        finally:
            stopping.set()
            await task
            await asking.close()

    return run


@pytest.fixture
def ended(store: JobStore) -> Callable[..., Any]:
    """Waits for a job's end and returns its results, parsed."""

    async def wait(
        status: JobStatus, order: Any = "input", tenant: str = "default"
    ) -> tuple[JobStatus, list[dict[str, Any]]]:
        text = b"".join([part async for part in store.results(status, order, tenant)])
        found = [json.loads(line) for line in text.splitlines()]
        return await store.status(status.id, tenant), found

    return wait
