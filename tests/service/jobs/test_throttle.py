from __future__ import annotations

import asyncio
import time

import pytest

from service.jobs.throttle import Throttle

pytestmark = pytest.mark.anyio


async def turned_over() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_window_grows_by_one_a_success_until_the_first_refusal():
    throttle = Throttle(20)
    assert throttle.window == 8
    for _ in range(10):
        throttle.succeeded()
    assert throttle.window == 18
    for _ in range(10):
        throttle.succeeded()
    assert throttle.window == 20


async def test_a_refusal_halves_it_and_then_it_takes_a_window_of_successes_to_grow_by_one():
    throttle = Throttle(64)
    throttle.refused(time.monotonic())
    assert throttle.window == 4
    for _ in range(4):
        throttle.succeeded()
    assert throttle.window == 4
    throttle.succeeded()
    assert throttle.window == 5


async def test_refusals_of_what_was_sent_together_halve_it_once():
    throttle = Throttle(64)
    sent_at = time.monotonic()
    for _ in range(8):
        throttle.refused(sent_at)
    assert throttle.window == 4


async def test_it_never_closes_by_itself():
    throttle = Throttle(64)
    for _ in range(100):
        throttle.refused(time.monotonic() + 1000)
    assert throttle.window == 1


async def test_no_more_enter_than_the_window_is_wide_and_they_do_so_in_order():
    throttle = Throttle(2)
    entered: list[int] = []

    async def enter(number: int) -> None:
        assert await throttle.enter()
        entered.append(number)

    tasks = [asyncio.create_task(enter(number)) for number in range(5)]
    await turned_over()
    assert entered == [0, 1]
    throttle.leave()
    await turned_over()
    assert entered == [0, 1, 2]
    throttle.leave()
    throttle.leave()
    await turned_over()
    assert entered == [0, 1, 2, 3, 4]
    await asyncio.gather(*tasks)


async def test_nobody_enters_in_a_pause_and_somebody_does_after_it():
    throttle = Throttle(8, longest_pause_s=0.05)
    throttle.refused(time.monotonic())
    entering = asyncio.create_task(throttle.enter())
    await turned_over()
    assert not entering.done()
    assert await entering


async def test_those_who_left_the_queue_take_no_place_with_them():
    throttle = Throttle(1)
    assert await throttle.enter()
    gone, coming = (asyncio.create_task(throttle.enter()) for _ in range(2))
    await turned_over()
    gone.cancel()
    await turned_over()
    throttle.leave()
    assert await coming


async def test_one_who_leaves_in_the_moment_of_its_turn_hands_it_on():
    throttle = Throttle(1)
    assert await throttle.enter()
    gone, coming = (asyncio.create_task(throttle.enter()) for _ in range(2))
    await turned_over()
    throttle.leave()  # the place is the first one's now
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await coming


async def test_closing_it_sends_everybody_away():
    throttle = Throttle(1)
    assert await throttle.enter()
    waiting = asyncio.create_task(throttle.enter())
    await turned_over()
    throttle.close()
    assert await waiting is False
    assert await throttle.enter() is False
    assert throttle.closed
