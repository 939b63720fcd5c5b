from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator

import pytest

from service.process_pool import ProcessPool, Refused, TaskFailed, TaskLost

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[ProcessPool]:
    started = ProcessPool(2, cpu_s=1.0, memory_bytes=256 * 2**20, still_s=2.0)
    yield started
    await started.close()


def burn() -> None:
    while True:
        pass


def spend(seconds: float) -> str:
    ends = time.process_time() + seconds
    while time.process_time() < ends:
        pass
    return "done"


def dawdle(seconds: float) -> str:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.process_time()
        while time.process_time() - started < 0.02:
            pass
        time.sleep(0.4)
    return "done"


def take(size: int) -> int:
    return len(bytearray(size))


def refuse(why: str) -> None:
    raise Refused(why)


def burst() -> None:
    raise threading.BrokenBarrierError("/etc/secret")


def end_with(number: int) -> None:
    os.kill(os.getpid(), number)


class Killed:
    """A task whose process is killed by somebody else, the first time that it is tried."""

    def __init__(self, marker: str) -> None:
        self._marker = marker

    def __call__(self) -> str:
        if not os.path.exists(self._marker):
            open(self._marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"


async def test_a_task_runs_in_another_process(pool: ProcessPool):
    assert await pool.run(os.getpid) != os.getpid()
    assert await pool.run(divmod, 17, 5) == (3, 2)


async def test_what_a_task_refuses_is_told_in_its_words(pool: ProcessPool):
    with pytest.raises(Refused, match="too blue"):
        await pool.run(refuse, "too blue")


async def test_any_other_exception_is_told_by_its_name_alone(pool: ProcessPool):
    with pytest.raises(TaskFailed) as failed:
        await pool.run(burst)
    assert str(failed.value) == "BrokenBarrierError"


async def test_a_task_without_end_is_ended_and_takes_nobody_with_it(pool: ProcessPool):
    burning = asyncio.create_task(pool.run(burn))
    beside = [await pool.run(take, 10) for _ in range(20)]
    with pytest.raises(TaskFailed, match=str(-signal.SIGPROF)):
        await burning
    assert beside == [10] * 20
    assert await asyncio.gather(*(pool.run(take, n) for n in range(4))) == [0, 1, 2, 3]


async def test_a_task_may_be_given_less_time_than_others(pool: ProcessPool):
    assert await pool.run_for(0.1, take, 3) == 3
    with pytest.raises(TaskFailed, match=str(-signal.SIGPROF)):
        await pool.run_for(0.1, spend, 0.6)
    assert await pool.run(spend, 0.6) == "done"


async def test_a_task_that_stands_still_is_ended_and_not_tried_again(pool: ProcessPool):
    began = time.monotonic()
    with pytest.raises(TaskFailed, match="stood still"):
        await pool.run(time.sleep, 600)
    assert time.monotonic() - began < 60
    assert await asyncio.gather(*(pool.run(take, n) for n in range(4))) == [0, 1, 2, 3]


async def test_a_task_that_is_slow_may_take_its_time(pool: ProcessPool):
    assert await pool.run(dawdle, 3.0) == "done"


async def test_a_task_that_makes_no_end_of_it_is_ended(pool: ProcessPool):
    with pytest.raises(TaskFailed, match="stood still"):
        await pool.run(dawdle, 600.0)


async def test_a_task_that_takes_too_much_memory_fails(pool: ProcessPool):
    assert await pool.run(take, 100 * 2**20) == 100 * 2**20
    with pytest.raises(TaskFailed, match="MemoryError"):
        await pool.run(take, 400 * 2**20)
    assert await pool.run(take, 5) == 5


async def test_a_task_that_crashes_its_process_is_not_tried_again(pool: ProcessPool):
    with pytest.raises(TaskFailed, match=str(-signal.SIGSEGV)):
        await pool.run(end_with, signal.SIGSEGV)


async def test_a_task_whose_process_somebody_kills_is_tried_again(
    pool: ProcessPool, tmp_path_factory: pytest.TempPathFactory
):
    marker = tmp_path_factory.mktemp("killed") / "marker"
    assert await pool.run(Killed(str(marker))) == "done"


async def test_a_task_that_is_killed_each_time_fails_in_the_end(pool: ProcessPool):
    with pytest.raises(TaskLost, match="again and again"):
        await pool.run(end_with, signal.SIGKILL)


async def test_a_caller_that_leaves_keeps_nobody_from_the_pool(pool: ProcessPool):
    calls = [asyncio.create_task(pool.run(burn)) for _ in range(6)]
    await asyncio.sleep(0.05)
    for call in calls:
        call.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end).__name__ for end in ended] == ["CancelledError"] * 6
    assert await pool.run(take, 3) == 3


async def test_closing_does_not_wait_for_what_runs():
    pool = ProcessPool(1, cpu_s=3600)
    running = asyncio.create_task(pool.run(burn))
    await asyncio.sleep(0.05)
    await pool.close()
    with pytest.raises(TaskFailed):
        await running
