from __future__ import annotations

import asyncio

import pytest

from service.single_flight import SingleFlight

pytestmark = pytest.mark.anyio


class Work:
    """Waits for `go`; counts how often it was begun and how often it was cancelled."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.begun


async def test_the_same_at_the_same_time_is_done_once():
    flights, work = SingleFlight(), Work()
    asking = [asyncio.create_task(flights.run("k", work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.go.set()
    assert await asyncio.gather(*asking) == [1, 1, 1]
    assert await flights.run("k", work) == 2


async def test_what_differs_is_done_apart():
    flights, work = SingleFlight(), Work()
    work.go.set()
    assert await asyncio.gather(*(flights.run(key, work) for key in "ab")) == [1, 2]


async def test_an_error_reaches_all_who_waited_and_nobody_later():
    async def fail() -> None:
        raise ValueError("no")

    flights, work = SingleFlight(), Work()
    ended = await asyncio.gather(
        *(flights.run("k", fail) for _ in range(3)), return_exceptions=True
    )
    assert [str(end) for end in ended] == ["no"] * 3
    work.go.set()
    assert await flights.run("k", work) == 1


async def test_who_leaves_does_not_stop_it_and_the_last_does():
    flights, work = SingleFlight(), Work()
    asking = [asyncio.create_task(flights.run("k", work)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    asking[1].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (work.cancelled, asking[2].done()) == (0, False)
    asking[2].cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(0)
    assert work.cancelled == 1


async def test_who_comes_after_the_last_has_left_begins_anew():
    flights, work = SingleFlight(), Work()
    left = asyncio.create_task(flights.run("k", work))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    again = asyncio.create_task(flights.run("k", work))
    await asyncio.sleep(0)
    work.go.set()
    assert await again == 2
