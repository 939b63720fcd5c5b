from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.flights import Flights
from service.metrics import Metrics
from service.settings import CacheSettings
from service.store import Store
from service.tenancy import acting_for

pytestmark = pytest.mark.anyio


class Work:
    """Takes until `go`; what it makes is kept if it is to be."""

    def __init__(self, store: Store, *, keeps: bool = True) -> None:
        self._store, self._keeps = store, keeps
        self.begun = 0
        self.go = asyncio.Event()

    async def kept(self) -> dict[str, int] | None:
        return await self._store.judgement("k", counted=False)

    async def make(self) -> dict[str, int]:
        self.begun += 1
        await self.go.wait()
        made = {"number": self.begun}
        if self._keeps:
            await self._store.keep_judgement("k", made)
        return made

    async def fail(self) -> dict[str, int]:
        self.begun += 1
        await self.go.wait()
        raise ValueError("no")


def a_store(url: str) -> Store:
    return Store(url, CacheSettings(), Metrics(CollectorRegistry()))


@pytest.fixture
async def stores(redis_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Those of two gateways on one Redis."""
    pair = a_store(redis_url), a_store(redis_url)
    yield pair
    for store in pair:
        await store.close()


async def begun(work: Work, count: int = 1) -> None:
    while work.begun < count:
        await asyncio.sleep(0.01)


async def test_two_gateways_do_the_same_work_once(stores: tuple[Store, Store]):
    work = Work(stores[0])
    here, there = Flights(stores[0]), Flights(stores[1])
    first = asyncio.create_task(here.run("k", work.kept, work.make))
    await begun(work)
    beside = asyncio.create_task(here.run("k", work.kept, work.make))
    elsewhere = asyncio.create_task(there.run("k", work.kept, work.make))
    await asyncio.sleep(0.1)
    assert work.begun == 1
    work.go.set()
    assert await first == ({"number": 1}, True)
    assert await beside == ({"number": 1}, False)
    assert await elsewhere == ({"number": 1}, False)


async def test_different_work_and_different_tenants_do_not_wait(stores: tuple[Store, Store]):
    flights, work = Flights(stores[0]), Work(stores[0], keeps=False)
    running = [asyncio.create_task(flights.run("a", work.kept, work.make))]
    with acting_for("other"):
        running.append(asyncio.create_task(flights.run("a", work.kept, work.make)))
    running.append(asyncio.create_task(flights.run("b", work.kept, work.make)))
    await begun(work, 3)
    work.go.set()
    assert [made for _, made in await asyncio.gather(*running)] == [True] * 3


async def test_who_waited_for_work_that_failed_elsewhere_does_it(stores: tuple[Store, Store]):
    work, own = Work(stores[0]), Work(stores[1])
    failing = asyncio.create_task(Flights(stores[0]).run("k", work.kept, work.fail))
    await begun(work)
    waiting = asyncio.create_task(Flights(stores[1]).run("k", own.kept, own.make))
    await asyncio.sleep(0.05)
    assert own.begun == 0
    work.go.set()
    own.go.set()
    with pytest.raises(ValueError, match="no"):
        await failing
    assert await waiting == ({"number": 1}, True)


async def test_what_is_not_worth_keeping_is_made_by_each_gateway(stores: tuple[Store, Store]):
    work, own = Work(stores[0], keeps=False), Work(stores[1], keeps=False)
    work.go.set()
    own.go.set()
    found = await asyncio.gather(
        Flights(stores[0]).run("k", work.kept, work.make),
        Flights(stores[1]).run("k", own.kept, own.make),
    )
    assert [made for _, made in found] == [True, True]


async def test_work_that_was_left_is_free_for_others_at_once(stores: tuple[Store, Store]):
    work, own = Work(stores[0]), Work(stores[1])
    left = asyncio.create_task(Flights(stores[0]).run("k", work.kept, work.make))
    await begun(work)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    own.go.set()
    assert await Flights(stores[1]).run("k", own.kept, own.make) == ({"number": 1}, True)


async def test_a_claim_is_given_back_by_its_holder_alone(stores: tuple[Store, Store]):
    first, second = stores
    assert await first.claim("c", "mine", 30) is True
    assert await second.claim("c", "yours", 30) is False
    await second.unclaim("c", "yours")
    await second.renew("c", "yours", 1)
    assert await second.claim("c", "yours", 30) is False
    await first.unclaim("c", "mine")
    assert await second.claim("c", "yours", 30) is True


async def test_the_claim_of_a_gateway_that_died_ends(stores: tuple[Store, Store]):
    assert await stores[0].claim("default:k", "dead", 1) is True
    work = Work(stores[1])
    work.go.set()
    assert await Flights(stores[1]).run("k", work.kept, work.make) == ({"number": 1}, True)


async def test_without_redis_each_gateway_does_its_own(tmp_path: Path):
    stores = [a_store(f"unix://{tmp_path}/no.socket") for _ in range(2)]
    works = [Work(store) for store in stores]
    for work in works:
        work.go.set()
    found = await asyncio.gather(
        *(
            Flights(store).run("k", work.kept, work.make)
            for store, work in zip(stores, works, strict=True)
        )
    )
    assert found == [({"number": 1}, True)] * 2
    for store in stores:
        await store.close()


async def test_a_redis_that_stops_answering_in_the_middle_costs_no_answer(
    lone_redis: tuple[str, int],
):
    url, process = lone_redis
    store = a_store(url)
    work = Work(store)
    running = asyncio.create_task(Flights(store).run("k", work.kept, work.make))
    await begun(work)
    os.kill(process, signal.SIGSTOP)
    try:
        work.go.set()
        assert await running == ({"number": 1}, True)
    finally:
        os.kill(process, signal.SIGCONT)
        await store.close()
