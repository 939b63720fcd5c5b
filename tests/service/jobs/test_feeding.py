from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.jobs.feeding import Feeding
from service.jobs.job_store import JobStore
from service.jobs.keys import SOURCE
from service.jobs.leases import LeaseLost, Leases, Result
from service.jobs.sources import open_source, source_chunks
from service.settings import Settings

from .conftest import judged, numbered

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pairs"
    made.mkdir()
    return made


@pytest.fixture
def allowing(folder: Path) -> dict[str, Any]:
    """Settings of a worker that may read from the folder."""
    return {"job_sources": (f"file://{folder}",)}


def written(folder: Path, count: int) -> str:
    (folder / "pairs.jsonl").write_bytes(b"\n".join(numbered(count)))
    return f"file://{folder}/pairs.jsonl"


async def test_a_source_is_worked_on_while_it_is_read(
    folder: Path, allowing: dict[str, Any], store: JobStore, working, ended
):
    job = await store.open(written(folder, 300))
    assert (job.state, job.total, job.eta_s) == ("queued", 0, None)
    async with working(judged, "one", **allowing), working(judged, "two", **allowing):
        status, results = await ended(job)
    assert (status.state, status.total, status.ok, status.reason) == ("done", 300, 300, None)
    assert [result["line"] for result in results] == list(range(1, 301))


async def test_an_empty_source_is_done(
    folder: Path, allowing: dict[str, Any], store: JobStore, working, ended
):
    job = await store.open(written(folder, 0))
    async with working(judged, **allowing):
        status, results = await ended(job)
    assert (status.state, status.total, results) == ("done", 0, [])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd.jsonl", "not read from there"),
        ("file://{folder}/none.jsonl", "cannot be read"),
    ],
)
async def test_a_source_that_a_worker_may_or_can_not_read_makes_the_job_fail(
    url: str,
    reason: str,
    folder: Path,
    allowing: dict[str, Any],
    store: JobStore,
    working,
    ended,
):
    job = await store.open(url.format(folder=folder))
    async with working(judged, **allowing):
        status, results = await ended(job)
    assert (status.state, results) == ("failed", [])
    assert reason in (status.reason or "")


async def test_a_source_with_too_many_lines_makes_the_job_fail_and_keeps_what_was_done(
    folder: Path, allowing: dict[str, Any], store: JobStore, working, ended
):
    job = await store.open(written(folder, 200))
    async with working(judged, **allowing, jobs={"lines": 150}):
        status, results = await ended(job)
    assert status.state == "failed"
    assert "150 lines" in (status.reason or "")
    assert len(results) == status.ok <= 150


async def test_reading_goes_on_where_a_worker_that_died_had_come(
    folder: Path, allowing: dict[str, Any], store: JobStore, leases, working, ended
):
    job = await store.open(written(folder, 300))
    dead: Leases = leases("dead")
    lease = await dead.next()
    assert lease is not None
    assert lease.chunk == SOURCE
    source = open_source(f"file://{folder}/pairs.jsonl", allowing["job_sources"])
    await dead.pin(lease, source.version)
    number = 0
    async for lines in source_chunks(source, line_bytes=10_000, most_lines=10**6):
        if number < 2:
            await dead.extend(lease, number, lines)
        number += 1
    source.file.close()
    await dead.release(lease)
    async with working(judged, **allowing):
        status, results = await ended(job)
    assert (status.state, status.total) == ("done", 300)
    assert [result["line"] for result in results] == list(range(1, 301))
    with pytest.raises(LeaseLost):
        await dead.extend(lease, 5, [])
    with pytest.raises(LeaseLost):
        await dead.seal(lease, 5)


async def test_chunks_that_redis_has_lost_are_read_again(
    folder: Path, allowing: dict[str, Any], store: JobStore, leases, moment, working, ended
):
    job = await store.open(written(folder, 300))
    reader: Leases = leases("reader")
    lease = await reader.next()
    assert lease is not None
    source = open_source(f"file://{folder}/pairs.jsonl", allowing["job_sources"])
    await reader.pin(lease, source.version)
    chunks = [one async for one in source_chunks(source, line_bytes=10_000, most_lines=10**6)]
    source.file.close()
    for number in (0, 1):
        await reader.extend(lease, number, chunks[number])
    go_back = await moment()
    for number in (2, 3, 4):
        await reader.extend(lease, number, chunks[number])
    await go_back()
    with pytest.raises(LeaseLost):
        await reader.extend(lease, 3, chunks[3])
    with pytest.raises(LeaseLost):
        await reader.seal(lease, 5)
    await reader.release(lease)
    async with working(judged, **allowing):
        status, results = await ended(job)
    assert (status.state, status.total) == ("done", 300)
    assert [result["line"] for result in results] == list(range(1, 301))


async def test_a_source_that_changes_between_two_readers_makes_the_job_fail(
    folder: Path, allowing: dict[str, Any], store: JobStore, leases, working, ended
):
    job = await store.open(written(folder, 300))
    lease = await leases("dead").next()
    await leases("dead").pin(lease, "another version")
    await leases("dead").release(lease)
    async with working(judged, **allowing):
        status, _ = await ended(job)
    assert status.state == "failed"
    assert "changed" in (status.reason or "")


async def test_reading_waits_for_those_who_work(
    folder: Path, allowing: dict[str, Any], store: JobStore, leases, until, connection
):
    (folder / "pairs.jsonl").write_bytes(b"{}\n" * 64 * 300)
    job = await store.open(f"file://{folder}/pairs.jsonl")
    lease = await leases("a").next()
    feeding = Feeding(leases("a"), Settings(engine="scripted", **allowing))
    task = asyncio.create_task(feeding.feed(lease))
    while (await store.status(job.id)).chunks < 256:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert (await store.status(job.id)).chunks == 256
    first = await leases("a").next()
    for line in await leases("a").lines(first):
        await leases("a").record(first, line, Result("ok", b"{}"))
    await leases("a").finish(first)
    while (await store.status(job.id)).chunks < 257:
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_reads_a_few_sources_at_once_and_finds_other_work_meanwhile(
    folder: Path, allowing: dict[str, Any], store: JobStore, started, working, ended
):
    (folder / "endless.jsonl").touch()
    os.truncate(folder / "endless.jsonl", 2**40)  # one line, of which nothing is on the disk
    jobs = [await store.open(f"file://{folder}/endless.jsonl") for _ in range(6)]

    async def states() -> Counter[str]:
        return Counter([(await store.status(job.id)).state for job in jobs])

    async with working(judged, **allowing):
        while (await states())["running"] < 4:
            await asyncio.sleep(0.02)
        for _ in range(3):
            await ended(await started(numbered(10)))
        assert await states() == {"running": 4, "queued": 2}
        reading = [job for job in jobs if (await store.status(job.id)).state == "running"]
        await store.cancel(reading[0].id)
        while (await states())["running"] < 4:
            await asyncio.sleep(0.02)
        await ended(await started(numbered(10)))
    assert await states() == {"running": 4, "queued": 1, "cancelled": 1}
    (folder / "endless.jsonl").unlink()  # what copies folders would take it for a terabyte


async def test_a_cancelled_job_is_not_read_on(folder: Path, allowing, store: JobStore, leases):
    job = await store.open(written(folder, 100))
    lease = await leases("a").next()
    await store.cancel(job.id)
    with pytest.raises(LeaseLost):
        await Feeding(leases("a"), Settings(engine="scripted", **allowing)).feed(lease)
