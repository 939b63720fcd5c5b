from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from service.errors import NotFound, Overloaded, StoreUnavailable
from service.jobs.chunks import Line
from service.jobs.connection import Connection
from service.jobs.job_store import JobStore
from service.jobs.keys import DEADLINES, SOURCE
from service.jobs.leases import Result
from service.settings import JobSettings

from .conftest import judged, numbered

pytestmark = pytest.mark.anyio


async def test_a_job_without_lines_is_done_at_once(started, ended):
    job = await started([b"", b"  "])
    assert (job.state, job.total, job.eta_s) == ("done", 0, 0)
    assert await ended(job) == (job, [])


@pytest.mark.parametrize("name", ["", "job_", "job_" + "0" * 32, "job_" + "A" * 32, "x{y}:z *"])
async def test_a_job_that_does_not_exist_is_not_found(name: str, store: JobStore):
    with pytest.raises(NotFound):
        await store.status(name)
    with pytest.raises(NotFound):
        await store.cancel(name)


class Twice(Connection):
    """Takes each step again, as one whose answer came too late."""

    async def step(self, name: str, keys: list[str], arguments: Sequence[str | int | bytes]) -> Any:
        await super().step(name, keys, arguments)
        return await super().step(name, keys, arguments)


async def test_a_step_that_is_taken_twice_does_what_it_does_once(redis_url: str, leases):
    connection = Twice(redis_url)
    store = JobStore(connection, JobSettings())
    keys = await store.create()
    await store.add(keys, 0, [Line(1, b"{}")])
    assert (await store.publish(keys, 1, 1)).state == "queued"
    assert (await store.cancel(keys.id)).state == "cancelled"
    assert await connection.redis.keys("*:lines:*") == []
    job = await store.open("file:///pairs/p.jsonl")
    assert (job.state, job.total, job.chunks) == ("queued", 0, 0)
    assert (await leases("a").next()).chunk == SOURCE
    assert await leases("a").next() is None
    await connection.close()


async def test_a_job_is_its_tenants_alone(started, store: JobStore, working, ended):
    job = await started(numbered(3), tenant="ours")
    for tenant in ("default", "theirs", "ours "):
        with pytest.raises(NotFound):
            await store.status(job.id, tenant)
        with pytest.raises(NotFound):
            await store.cancel(job.id, tenant)
    async with working(judged):
        status, results = await ended(job, tenant="ours")
    assert (status.state, len(results)) == ("done", 3)


async def test_an_upload_is_no_job_before_it_is_complete(
    store: JobStore, leases, connection, ended
):
    keys = await store.create()
    await store.add(keys, 0, [Line(1, b"{}")])
    with pytest.raises(NotFound):
        await store.status(keys.id)
    assert await leases("a").next() is None
    job = await store.publish(keys, 1, 1)
    assert await store.publish(keys, 1, 1) == job
    assert (await leases("a").next()).chunk == 0
    assert await leases("a").next() is None


async def test_an_upload_that_broke_off_leaves_nothing(store: JobStore, connection):
    for _ in range(2):
        keys = await store.create()
        for chunk in range(3):
            await store.add(keys, chunk, [Line(1, b"{}")])
    await store.discard(keys)
    assert await store.sweep() == 0
    assert await connection.redis.zcard(DEADLINES) == 1
    later = dict.fromkeys(await connection.redis.zrange(DEADLINES, 0, -1), 0)
    await connection.redis.zadd(DEADLINES, later)
    assert await store.sweep() == 1
    assert await connection.redis.keys("*") == []


async def test_an_upload_of_which_redis_has_lost_a_part_is_no_job_and_leaves_nothing(
    store: JobStore, moment, connection
):
    for lost in (True, False):
        keys = await store.create()
        await store.add(keys, 0, [Line(1, b"{}")])
        go_back = await moment()
        await store.add(keys, 1, [Line(2, b"{}")])
        if lost:
            await go_back()
        await store.add(keys, 2, [Line(3, b"{}")])
        if lost:
            with pytest.raises(StoreUnavailable, match="lost"):
                await store.publish(keys, 3, 3)
            await store.discard(keys)
            assert await connection.redis.keys() == []
        else:
            assert (await store.publish(keys, 3, 3)).state == "queued"


async def test_an_upload_that_redis_has_lost_is_no_job_and_leaves_nothing(
    store: JobStore, moment, connection
):
    go_back = await moment()
    keys = await store.create()
    await store.add(keys, 0, [Line(1, b"{}")])
    await go_back()
    await store.add(keys, 1, [Line(2, b"{}")])
    with pytest.raises(NotFound):
        await store.status(keys.id)
    with pytest.raises(StoreUnavailable, match="lost"):
        await store.publish(keys, 2, 2)
    await store.discard(keys)
    assert await connection.redis.keys() == []


async def test_a_job_is_forgotten_with_all_its_keys_when_its_time_has_come(
    started, working, ended, store: JobStore, connection, redis_url: str
):
    finished, cancelled, waiting = [await started(numbered(100)) for _ in range(3)]
    await store.cancel(cancelled.id)
    await store.cancel(waiting.id)
    async with working(judged):
        await ended(finished)
    assert await store.sweep() == 0
    now, _ = await connection.redis.time()
    left_s = await connection.redis.zscore(DEADLINES, f"{finished.id} default") - now
    assert 0 < left_s <= JobSettings().retention_s
    await connection.redis.zadd(DEADLINES, {f"{finished.id} default": 0})
    assert await store.sweep() == 1
    with pytest.raises(NotFound):
        await store.status(finished.id)
    assert (await store.status(cancelled.id)).state == "cancelled"
    assert not [key async for key in connection.redis.scan_iter(f"*{finished.id}*")]


async def test_no_key_of_a_job_may_be_evicted_like_a_cache_entry(
    started, working, ended, connection
):
    job = await started(numbered(100))
    async with working(judged):
        await ended(job)
    await started(numbered(100))
    names = await connection.redis.keys("*")
    assert len(names) > 6
    assert {await connection.redis.ttl(name) for name in names} == {-1}


async def test_lines_are_dropped_when_their_results_are_there(started, working, ended, connection):
    job = await started(numbered(100))
    assert len(await connection.redis.keys("*:lines:*")) == 2
    async with working(judged):
        await ended(job)
    left = {name.decode().partition("}")[2] for name in await connection.redis.keys("*job_*")}
    assert left == {"", ":completed", ":packed:0", ":packed:1"}


async def test_more_jobs_than_may_wait_are_refused(connection, started):
    store = JobStore(connection, JobSettings(active=2))
    jobs = [await started(numbered(1)) for _ in range(2)]
    with pytest.raises(Overloaded):
        await store.create()
    await store.cancel(jobs[0].id)
    assert (await store.create()).id.startswith("job_")


async def test_the_rest_takes_as_long_as_what_was_done_says(started, store, connection, leases):
    job = await started(numbered(64 * 3))
    lease = await leases("a").next()
    for line in (await leases("a").lines(lease))[:48]:
        await leases("a").record(lease, line, Result("ok", b"{}"))
    now, _ = await connection.redis.time()
    await connection.redis.hset(lease.keys.job, "started_s", now - 10)
    status = await store.status(job.id)
    assert status.eta_s == pytest.approx(30, abs=4)


async def test_results_come_while_the_job_runs_and_end_with_it(started, store, leases):
    job = await started(numbered(130))
    first, second, third = [await leases("a").next() for _ in range(3)]
    results = store.results(job, "completed")
    for lease in (second, first, third):
        for line in await leases("a").lines(lease):
            await leases("a").record(lease, line, Result("ok", b'{"line":%d}' % line.number))
        await leases("a").finish(lease)
        part = await anext(results)
        assert json.loads(part.splitlines()[0])["line"] == 64 * lease.chunk + 1
    assert [part async for part in results] == []


async def test_results_of_a_job_that_is_forgotten_meanwhile_do_not_end_as_if_complete(
    started, store, leases
):
    job = await started(numbered(10))
    lease = await leases("a").next()
    results = store.results(job, "input")
    reading = asyncio.create_task(anext(results))
    await asyncio.sleep(0)
    await store.discard(lease.keys)
    with pytest.raises(NotFound):
        await reading
