from __future__ import annotations

import asyncio

import pytest

from service.concurrency import stop_if_cancelled, together, unless

pytestmark = pytest.mark.anyio


async def after(seconds: float, result: str | Exception, ended: list[str] | None = None) -> str:
    """A result or an error, a little later; says how it ended."""
    how = "cancelled"
    try:
        await asyncio.sleep(seconds)
        how = "finished"
    finally:
        if ended is not None:
            ended.append(how)
    if isinstance(result, Exception):
        raise result
    return result


async def test_results_come_in_the_order_of_the_works():
    works = [after(0.03, "slow"), after(0.0, "quick"), after(0.01, "middling")]
    assert await together(works) == ["slow", "quick", "middling"]


async def test_no_works_have_no_results():
    assert await together([]) == []


async def test_works_run_at_the_same_time():
    began = asyncio.get_running_loop().time()
    await together(after(0.05, "x") for _ in range(20))
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_an_error_is_raised_on_its_own_and_cancels_the_other_works():
    ended: list[str] = []
    with pytest.raises(ValueError, match=r"^wrong$"):
        await together([after(60, "x", ended), after(0.01, ValueError("wrong"))])
    assert ended == ["cancelled"]


async def test_the_first_of_several_errors_is_raised():
    with pytest.raises(KeyError):
        await together([after(0.0, KeyError("first")), after(0.0, ValueError("second"))])


async def test_cancelling_cancels_every_work():
    ended: list[str] = []
    works = [after(60, "x", ended) for _ in range(3)]
    task = asyncio.create_task(together(works))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"] * 3


async def test_a_task_whose_cancellation_was_swallowed_stops_all_the_same():
    async def swallows() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stop_if_cancelled()
        return "went on"

    task = asyncio.create_task(swallows())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_was_not_cancelled_goes_on():
    stop_if_cancelled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)
    stop_if_cancelled()


async def test_a_failure_leaves_no_mark_of_a_cancellation_behind():
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await together([fail(), asyncio.sleep(60)])
    stop_if_cancelled()  # does not


async def test_work_is_ended_by_what_happens_first():
    happens, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asking = asyncio.create_task(unless(happens, endless(), LookupError("lost")))
    await asyncio.sleep(0)
    happens.set()
    with pytest.raises(LookupError, match="lost"):
        await asking
    assert ended.is_set()


async def test_work_that_is_done_before_keeps_its_result_and_its_error():
    async def done() -> int:
        return 7

    async def failed() -> int:
        raise KeyError("own")

    happens = asyncio.Event()
    assert await unless(happens, done(), LookupError()) == 7
    with pytest.raises(KeyError, match="own"):
        await unless(happens, failed(), LookupError())


async def test_a_caller_that_leaves_ends_the_work():
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asking = asyncio.create_task(unless(asyncio.Event(), endless(), LookupError()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended.is_set()
