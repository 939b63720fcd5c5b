from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from prometheus_client import CollectorRegistry

from service.admission import Admission
from service.engines import Priority
from service.errors import Draining, Overloaded
from service.metrics import Metrics
from service.settings import AdmissionSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def admission(metrics: Metrics) -> Admission:
    return Admission(AdmissionSettings(running=1, waiting=3), metrics)


def gauges(metrics: Metrics) -> tuple[float | None, float | None]:
    sample = metrics.registry.get_sample_value
    return sample("proxy_grm_inflight"), sample("proxy_grm_queued")


async def settled() -> None:
    """Lets every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


def waiter(
    admission: Admission, name: str, served: list[str], priority: Priority = "interactive"
) -> asyncio.Task[None]:
    async def work() -> None:
        async with admission.lease(priority):
            served.append(name)

    return asyncio.create_task(work())


async def test_a_free_place_is_taken_without_waiting(admission, metrics):
    async with admission.lease("interactive") as queue_s:
        assert gauges(metrics) == (1, 0)
    assert queue_s < 0.05
    assert gauges(metrics) == (0, 0)


async def test_no_more_leases_are_held_than_the_settings_allow(metrics):
    admission = Admission(AdmissionSettings(running=3, waiting=50), metrics)
    held, most_held = 0, 0

    async def work() -> None:
        nonlocal held, most_held
        async with admission.lease("batch"):
            held += 1
            most_held = max(most_held, held)
            await asyncio.sleep(0.001)
            held -= 1

    await asyncio.gather(*(work() for _ in range(30)))
    assert most_held == 3
    assert gauges(metrics) == (0, 0)


async def test_waiters_are_served_in_the_order_of_their_arrival(admission):
    served: list[str] = []
    async with admission.lease("interactive"):
        waiters = [waiter(admission, name, served) for name in ("first", "second", "third")]
        await settled()
        assert served == []
    await asyncio.gather(*waiters)
    assert served == ["first", "second", "third"]


async def test_interactive_waiters_are_served_before_batch_ones(admission):
    served: list[str] = []
    async with admission.lease("batch"):
        waiters = [
            waiter(admission, "early batch", served, "batch"),
            waiter(admission, "late batch", served, "batch"),
            waiter(admission, "interactive", served, "interactive"),
        ]
        await settled()
    await asyncio.gather(*waiters)
    assert served == ["interactive", "early batch", "late batch"]


async def test_the_time_in_the_queue_is_told(admission):
    async def second() -> float:
        async with admission.lease("interactive") as queue_s:
            return queue_s

    async with admission.lease("interactive"):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
    assert 0.04 <= await waiting < 1


async def test_a_full_queue_refuses_and_says_when_to_come_back(admission, metrics):
    served: list[str] = []
    async with admission.lease("interactive"):
        waiters = [waiter(admission, str(n), served) for n in range(3)]
        await settled()
        assert gauges(metrics) == (1, 3)
        with pytest.raises(Overloaded) as refused:
            async with admission.lease("interactive"):
                pass
        assert refused.value.retry_after_s == 1
        assert gauges(metrics) == (1, 3)
    await asyncio.gather(*waiters)
    assert len(served) == 3


async def test_without_a_queue_the_second_is_refused_at_once(metrics):
    admission = Admission(AdmissionSettings(running=1, waiting=0), metrics)
    async with admission.lease("interactive"):
        with pytest.raises(Overloaded):
            async with admission.lease("interactive"):
                pass
    async with admission.lease("interactive"):
        pass


async def test_a_waiter_that_gives_up_leaves_the_queue(admission, metrics):
    served: list[str] = []
    async with admission.lease("interactive"):
        leaving, staying = (waiter(admission, name, served) for name in ("leaving", "staying"))
        await settled()
        leaving.cancel()
        await settled()
        assert gauges(metrics) == (1, 1)
    await staying
    assert served == ["staying"]
    assert gauges(metrics) == (0, 0)


async def test_a_place_is_not_lost_when_its_waiter_gives_up_in_the_moment_of_its_turn(
    admission, metrics
):
    served: list[str] = []
    async with admission.lease("interactive"):
        leaving, staying = (waiter(admission, name, served) for name in ("leaving", "staying"))
        await settled()
    leaving.cancel()  # its turn has come, but it has not run yet
    await asyncio.wait_for(staying, 1)
    assert served == ["staying"]
    assert gauges(metrics) == (0, 0)


@pytest.mark.parametrize("end", [ValueError, asyncio.CancelledError])
async def test_a_lease_is_given_back_whatever_happens_inside(
    admission, metrics, end: type[BaseException]
):
    with pytest.raises(end):
        async with admission.lease("interactive"):
            raise end
    assert gauges(metrics) == (0, 0)
    async with admission.lease("interactive"):
        pass


async def test_draining_refuses_what_is_new_and_serves_what_waits(admission):
    served: list[str] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(admission.lease("interactive"))
        waiting = waiter(admission, "came before", served)
        await settled()
        admission.draining = True
        with pytest.raises(Draining) as refused:
            async with admission.lease("interactive"):
                pass
        assert refused.value.retry_after_s == 5
        drained = asyncio.create_task(admission.drained())
        await settled()
        assert not drained.done()
    await waiting
    await asyncio.wait_for(drained, 1)
    assert served == ["came before"]


async def test_an_idle_gateway_is_drained_at_once(admission):
    await asyncio.wait_for(admission.drained(), 0.5)


def test_the_default_bounds_are_64_running_and_1024_waiting():
    assert AdmissionSettings().model_dump() == {"running": 64, "waiting": 1024}


async def test_many_waiters_coming_and_going_leave_nothing_behind(metrics):
    admission = Admission(AdmissionSettings(running=4, waiting=1000), metrics)
    served: list[str] = []
    waiters = [
        waiter(admission, str(n), served, "batch" if n % 2 else "interactive") for n in range(300)
    ]
    await asyncio.sleep(0)
    for leaving in waiters[::3]:
        leaving.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert gauges(metrics) == (0, 0)
    await asyncio.wait_for(admission.drained(), 1)
    assert len(served) >= 200
