from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.jobs.connection import Connection
from service.jobs.job_store import JobStore
from service.jobs.watching import JobWatch
from service.metrics import Metrics
from service.settings import JobSettings

from .conftest import judged, numbered

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def watched(store: JobStore) -> AsyncGenerator[Callable[[], tuple[float, float]]]:
    registry = CollectorRegistry()
    watch = JobWatch(store, Metrics(registry), look_every_s=0.01)
    watch.start()

    def found() -> tuple[float, float]:
        names = ("proxy_grm_jobs_unfinished", "proxy_grm_job_lines_unfinished")
        jobs, lines = (registry.get_sample_value(name) for name in names)
        assert jobs is not None
        assert lines is not None
        return jobs, lines

    yield found
    await watch.stop()


async def test_jobs_of_all_tenants_count_until_they_end(
    store: JobStore, started: Any, ended: Any, working: Any, until: Any
):
    before = await store.unfinished()
    first = await started(numbered(3), tenant="ours")
    second = await started(numbered(5), tenant="theirs")
    assert await store.unfinished() == (before[0] + 2, before[1] + 8)
    async with watched(store) as found:
        await until(lambda: found() == (before[0] + 2, before[1] + 8))
        await store.cancel(second.id, "theirs")
        async with working(judged):
            await ended(first, tenant="ours")
        after = await store.unfinished()
        await until(lambda: found() == after)
    assert after[0] <= before[0]


async def test_a_redis_that_does_not_answer_leaves_no_number_behind(
    store: JobStore, started: Any, until: Any, settings: JobSettings
):
    await started(numbered(2))
    nowhere = Connection("redis://127.0.0.1:1/0")
    async with watched(JobStore(nowhere, settings)) as found:
        await until(lambda: all(math.isnan(number) for number in found()))
    await nowhere.close()
