from __future__ import annotations

import asyncio
import os
import signal

import pytest

from service.errors import InvalidRequest, StoreUnavailable
from service.jobs.chunks import Line
from service.jobs.connection import Connection
from service.jobs.job_store import JobStore
from service.jobs.keys import GROUP, SOURCE, JobKeys
from service.jobs.leases import Lease, LeaseLost, Leases, Result
from service.settings import JobSettings

from .conftest import numbered

pytestmark = pytest.mark.anyio

OK = Result("ok", b"{}")


async def run_out(connection: Connection, lease: Lease) -> None:
    """Lets the time of a lease be over."""
    await connection.redis.xclaim(
        lease.keys.chunks, GROUP, "nobody", 0, [lease.entry], idle=3_601_000, justid=True
    )


async def answer_all(leases: Leases, lease: Lease) -> None:
    """Keeps a result for each of the chunk's lines."""
    for line in await leases.lines(lease):
        await leases.record(lease, line, Result("ok", b'{"line":%d}' % line.number))


async def test_chunks_go_out_once_and_in_order(leases, started):
    job = await started(numbered(200))
    found = [await leases("a").next(), await leases("b").next(), await leases("a").next()]
    assert [lease.chunk for lease in found] == [0, 1, 2]
    assert [lease.fence for lease in found] == [1, 1, 1]
    assert {lease.keys for lease in found} == {JobKeys("default", job.id)}
    last = await leases("c").next()
    assert last.chunk == 3
    assert await leases("c").next() is None
    lines = await leases("c").lines(last)
    assert [line.number for line in lines] == list(range(193, 201))


async def test_leases_begin_anew_when_the_clock_was_set_back(connection, started, leases):
    await started(numbered(10))
    lease = await leases("dead").next()
    redis, keys = connection.redis, lease.keys
    ahead_ms = int(await redis.hget(keys.job, "clock_ms")) + 7_200_000
    await redis.hset(keys.job, "clock_ms", ahead_ms)  # until now the clock was two hours ahead
    chunks = [keys.chunks, GROUP, "dead", 0, [lease.entry]]
    await redis.xclaim(*chunks, time=ahead_ms, justid=True)
    assert await leases("quick").next() is None
    await asyncio.sleep(0.02)
    [held] = await redis.xpending_range(keys.chunks, GROUP, "-", "+", 1, idle=10)
    assert held["consumer"] == b"dead"
    assert int(await redis.hget(keys.job, "clock_ms")) < ahead_ms - 7_000_000
    await asyncio.sleep(0.02)
    assert await leases("quick").next() is None  # they begin anew once, not at each look
    assert await redis.xpending_range(keys.chunks, GROUP, "-", "+", 1, idle=30)


async def test_a_lease_that_ran_out_goes_to_the_next_who_looks_and_the_former_holder_is_too_late(
    connection, started, leases, store: JobStore
):
    job = await started(numbered(10))
    slow, quick = leases("slow"), leases("quick")
    stale = await slow.next()
    assert stale is not None
    line, *_ = await slow.lines(stale)
    await slow.record(stale, line, OK)
    await run_out(connection, stale)
    lease = await quick.next()
    assert lease is not None
    assert (lease.chunk, lease.fence) == (stale.chunk, 2)
    for late in (slow.renew(stale), slow.record(stale, line, OK), slow.finish(stale)):
        with pytest.raises(LeaseLost):
            await late
    assert [line.number for line in await quick.lines(lease)] == list(range(2, 11))
    assert (await store.status(job.id)).ok == 1


async def test_one_that_ran_out_is_found_behind_many_that_are_held(connection, started, leases):
    await started(numbered(64 * 40))
    for _ in range(30):
        await leases("alive").next()
    lost = await leases("dead").next()
    await run_out(connection, lost)
    found = await leases("alive").next()
    assert (found.chunk, found.fence) == (lost.chunk, 2)


async def test_who_wants_no_source_gets_none_and_finds_chunks_all_the_same(
    connection, leases, store: JobStore
):
    for _ in range(100):
        await store.open("file:///pairs/waiting.jsonl")
    assert await leases("a").next(sources=False) is None
    source = await leases("a").next()
    await leases("a").extend(source, 0, [Line(1, b"{}")])
    await run_out(connection, source)
    found = await leases("a").next({source.keys}, sources=False)
    assert (found.keys, found.chunk) == (source.keys, 0)
    assert await leases("a").next({source.keys}, sources=False) is None
    assert (await leases("a").next()).chunk == SOURCE


async def test_a_renewed_lease_does_not_run_out(connection, leases, started):
    await started(numbered(10))
    lease = await leases("a").next()
    await run_out(connection, lease)
    await leases("a").renew(lease)
    assert await leases("b").next() is None
    await answer_all(leases("a"), lease)
    await leases("a").finish(lease)


async def test_a_line_has_the_first_result_that_was_kept_and_counts_once(
    leases, started, store: JobStore, ended
):
    job = await started(numbered(1))
    lease = await leases("a").next()
    [line] = await leases("a").lines(lease)
    await leases("a").record(lease, line, Result("ok", b'{"kept":"first"}'))
    await leases("a").record(lease, line, Result("error", b'{"kept":"second"}'))
    await leases("a").finish(lease)
    status, results = await ended(job)
    assert (status.ok, status.error) == (1, 0)
    assert results == [{"kept": "first"}]


async def test_a_chunk_that_is_given_back_goes_out_again_at_once(leases, started):
    await started(numbered(1))
    lease = await leases("a").next()
    assert await leases("b").next() is None
    await leases("a").release(lease)
    again = await leases("b").next()
    assert (again.chunk, again.fence) == (0, 2)


async def test_nothing_is_kept_or_leased_of_a_job_that_was_cancelled(leases, started, store):
    job = await started(numbered(100))
    lease = await leases("a").next()
    [line, *_] = await leases("a").lines(lease)
    await store.cancel(job.id)
    assert await leases("b").next() is None
    for late in (
        leases("a").lines(lease),
        leases("a").record(lease, line, OK),
        leases("a").renew(lease),
        leases("a").release(lease),
        leases("a").finish(lease),
    ):
        with pytest.raises(LeaseLost):
            await late


async def test_a_holder_that_is_too_late_does_not_end_the_job(connection, leases, store: JobStore):
    job = await store.open("file:///pairs/p.jsonl")
    slow, quick = leases("slow"), leases("quick")
    stale = await slow.next()
    await run_out(connection, stale)
    lease = await quick.next()
    unreadable = InvalidRequest("the source cannot be read")
    with pytest.raises(LeaseLost):
        await slow.fail(stale, unreadable)
    assert (await store.status(job.id)).state == "running"
    await quick.extend(lease, 0, [Line(1, b"{}")])
    await quick.fail(lease, unreadable)
    status = await store.status(job.id)
    assert (status.state, status.reason) == ("failed", "the source cannot be read")


async def test_a_holder_that_is_too_late_leaves_nothing_of_a_job_that_is_forgotten(
    connection, leases, store: JobStore
):
    await store.open("file:///pairs/p.jsonl")
    lease = await leases("a").next()
    await store.discard(lease.keys)
    with pytest.raises(LeaseLost):
        await leases("a").pin(lease, "a version")
    assert await connection.redis.keys() == []


async def test_a_job_whose_lines_are_lost_fails_instead_of_being_leased_for_ever(
    connection, leases, started, store: JobStore
):
    job = await started(numbered(100))
    lease = await leases("a").next()
    await connection.redis.delete(lease.keys.lines(lease.chunk))
    with pytest.raises(LeaseLost):
        await leases("a").lines(lease)
    status = await store.status(job.id)
    assert (status.state, status.reason) == ("failed", "lines of the job were lost; send it again")
    assert await leases("a").next() is None


async def test_lines_that_are_gone_because_another_has_finished_them_are_not_lost(
    connection, leases, started, store: JobStore
):
    job = await started(numbered(100))
    stale = await leases("slow").next()
    await run_out(connection, stale)
    lease = await leases("quick").next()
    await answer_all(leases("quick"), lease)
    await leases("quick").finish(lease)
    with pytest.raises(LeaseLost):
        await leases("slow").lines(stale)
    assert (await store.status(job.id)).state == "running"


async def test_a_full_store_is_told_and_a_finished_chunk_still_finds_room(
    connection, leases, started, ended
):
    job = await started(numbered(67))
    answered, lease = await leases("a").next(), await leases("a").next()
    await answer_all(leases("a"), answered)
    line, *_ = await leases("a").lines(lease)
    most = await connection.redis.config_get("maxmemory")
    try:
        await connection.redis.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="no room"):
            await leases("a").record(lease, line, OK)
        await leases("a").finish(answered)
    finally:
        await connection.redis.config_set("maxmemory", most["maxmemory"])
    await answer_all(leases("a"), lease)
    await leases("a").finish(lease)
    status, results = await ended(job)
    assert (status.state, len(results)) == ("done", 67)


async def test_a_chunk_of_which_redis_has_lost_a_result_is_not_finished_without_it(
    leases, started, moment, connection, ended
):
    job = await started([*numbered(2), b"", *numbered(1)])
    lease = await leases("a").next()
    first, *rest = await leases("a").lines(lease)
    await leases("a").record(lease, first, Result("ok", b'{"line":1}'))
    go_back = await moment()
    for line in rest:
        await leases("a").record(lease, line, OK)
    await go_back()
    await leases("a").record(lease, rest[1], Result("ok", b'{"line":4}'))
    with pytest.raises(LeaseLost):
        await leases("a").finish(lease)
    await run_out(connection, lease)
    again = await leases("b").next()
    assert [line.number for line in await leases("b").lines(again)] == [2]
    await answer_all(leases("b"), again)
    await leases("b").finish(again)
    status, results = await ended(job)
    assert (status.state, status.ok) == ("done", 3)
    assert [result["line"] for result in results] == [1, 2, 4]


async def test_a_store_that_is_gone_is_told(lone_redis):
    url, process_id = lone_redis
    connection = Connection(url)
    os.kill(process_id, signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        await Leases(connection, JobSettings(), "a").next()
    await connection.close()
