from __future__ import annotations

import asyncio
import math
import time
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
    settings = AdmissionSettings()
    assert (settings.running, settings.waiting) == (64, 1024)


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


def outcome(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value("proxy_grm_admission_total", {"outcome": name})


async def test_an_interactive_caller_takes_the_place_of_the_newest_batch_work_in_a_full_queue(
    admission, metrics
):
    served: list[str] = []
    async with admission.lease("batch"):
        batch = [waiter(admission, name, served, "batch") for name in ("b1", "b2", "b3")]
        await settled()
        urgent = waiter(admission, "urgent", served)
        await settled()
        assert gauges(metrics) == (1, 3)
        with pytest.raises(Overloaded) as displaced:
            await batch[2]
        assert displaced.value.retry_after_s == 1
    await asyncio.gather(urgent, *batch[:2])
    assert served == ["urgent", "b1", "b2"]
    assert (outcome(metrics, "displaced"), outcome(metrics, "admitted")) == (1, 4)


async def test_batch_work_takes_nobodys_place(admission, metrics):
    served: list[str] = []
    async with admission.lease("batch"):
        waiting = [waiter(admission, name, served, "batch") for name in ("b1", "b2", "b3")]
        await settled()
        with pytest.raises(Overloaded):
            async with admission.lease("batch"):
                pass
    await asyncio.gather(*waiting)
    assert served == ["b1", "b2", "b3"]
    assert outcome(metrics, "full") == 1


async def test_there_is_room_while_a_place_is_free_or_can_be_made(admission):
    served: list[str] = []
    admission.check_room()
    async with admission.lease("interactive"):
        first = [waiter(admission, name, served) for name in ("a", "b")]
        last = waiter(admission, "c", served, "batch")
        await settled()
        admission.check_room()
        last.cancel()
        await settled()
        last = waiter(admission, "d", served)
        await settled()
        with pytest.raises(Overloaded):
            admission.check_room()
    await asyncio.gather(*first, last)
    admission.draining = True
    with pytest.raises(Draining):
        admission.check_room()


async def test_who_would_not_be_served_in_time_is_refused_at_once(metrics):
    admission = Admission(AdmissionSettings(running=1, waiting=50), metrics)
    async with admission.lease("interactive"):
        await asyncio.sleep(0.05)  # the one thing known: a lease is held this long
    served: list[str] = []
    async with admission.lease("interactive"):
        patient = [waiter(admission, str(n), served) for n in range(20)]
        await settled()
        with pytest.raises(Overloaded) as refused:
            async with admission.lease("interactive", within_s=0.5):
                pass
        assert refused.value.retry_after_s >= 2  # more than 22 turns of 0.05 s
        assert (outcome(metrics, "hopeless"), gauges(metrics)) == (1, (1, 20))
    await asyncio.gather(*patient)
    async with admission.lease("interactive", within_s=0.5):
        assert len(served) == 20


async def test_a_free_place_is_given_whatever_is_expected(metrics):
    admission = Admission(AdmissionSettings(running=1, waiting=5), metrics)
    async with admission.lease("interactive"):
        await asyncio.sleep(0.05)
    async with admission.lease("interactive", within_s=0.001):
        pass
    assert outcome(metrics, "admitted") == 2


async def test_nobody_waits_longer_than_the_settings_say(metrics):
    admission = Admission(AdmissionSettings(running=1, waiting=5, queue_s=0.02), metrics)
    async with admission.lease("interactive"):
        with pytest.raises(Overloaded):
            async with admission.lease("interactive"):
                pass
        assert gauges(metrics) == (1, 0)
    assert gauges(metrics) == (0, 0)
    assert outcome(metrics, "too_long") == 1


async def test_a_waiter_that_leaves_as_its_turn_is_skipped_gives_back_nothing_it_did_not_have(
    admission, metrics
):
    served: list[str] = []
    async with admission.lease("interactive"):
        leaving = waiter(admission, "leaving", served)
        await settled()
        leaving.cancel()
    await settled()
    assert gauges(metrics) == (0, 0)
    async with admission.lease("interactive"):
        assert gauges(metrics) == (1, 0)


async def test_who_would_be_served_at_the_last_moment_is_refused_now(metrics):
    admission = Admission(AdmissionSettings(running=1, waiting=50), metrics)
    began = time.monotonic()
    async with admission.lease("interactive"):
        await asyncio.sleep(0.05)
    turn_s = time.monotonic() - began  # at least what a lease is known to be held
    async with admission.lease("interactive"):
        with pytest.raises(Overloaded):  # two turns: this one and its own
            async with admission.lease("interactive", within_s=2 * 0.05):
                pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), admission.lease("interactive", within_s=3 * turn_s):
                pass
    assert outcome(metrics, "hopeless") == 1


async def test_where_those_who_waited_come_late_fewer_are_let_in_until_they_are_in_time(metrics):
    now_s = 0.0
    admission = Admission(AdmissionSettings(running=1, waiting=9), metrics, clock=lambda: now_s)

    async def one(held_s: float, within_s: float = math.inf) -> None:
        nonlocal now_s
        async with admission.lease("interactive", within_s):
            await asyncio.sleep(0)
            now_s += held_s

    async def behind_another(held_s: float, within_s: float) -> None:
        """Two seconds are expected of it."""
        first = asyncio.create_task(one(1))
        await asyncio.sleep(0)
        try:
            await one(held_s, within_s)
        finally:
            await first
            for _ in range(200):  # so that a place is held for a second again
                await one(1)

    await one(1)
    await behind_another(1, 4)
    for _ in range(15):  # 1.25 x 1.1 ^ 15 is more than 4
        await behind_another(9, 10)
    with pytest.raises(Overloaded):
        await behind_another(1, 7)
    await behind_another(1, 9)  # in plenty of time: that says nothing
    with pytest.raises(Overloaded):
        await behind_another(1, 7)
    for _ in range(1200):
        await behind_another(4.5, 9)
    await behind_another(1, 4)
