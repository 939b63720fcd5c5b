from __future__ import annotations

import asyncio

import pytest

from service.engines.progress import Progress
from service.errors import EngineUnavailable

pytestmark = pytest.mark.anyio

PATIENCE_S = 0.02


class Probed:
    """What is asked for a token, and how it takes that."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()

    async def __call__(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        await self.answers.wait()


@pytest.fixture
def probed() -> Probed:
    return Probed()


@pytest.fixture
def progress(probed: Probed) -> Progress:
    return Progress(probed, PATIENCE_S)


async def later() -> None:
    await asyncio.sleep(2 * PATIENCE_S)


async def test_an_engine_without_work_is_left_alone(progress: Progress, probed: Probed):
    await later()
    with progress.generating():
        pass
    await later()
    assert not await progress.stalled()
    assert probed.asked == 0


async def test_work_of_which_nothing_comes_and_a_probe_without_an_answer_are_a_stall(
    progress: Progress, probed: Probed
):
    with progress.generating():
        assert not await progress.stalled()  # not yet
        await later()
        assert await progress.stalled()
    assert probed.asked == 1


async def test_one_that_answers_the_probe_is_only_slow(progress: Progress, probed: Probed):
    probed.answers.set()
    with progress.generating():
        await later()
        assert not await progress.stalled()
        assert not await progress.stalled()  # its patience has begun anew
    assert probed.asked == 1


async def test_one_whose_steps_go_on_is_not_asked(progress: Progress, probed: Probed):
    with progress.generating():
        await later()
        progress.moved()
        assert not await progress.stalled()
    assert probed.asked == 0


async def test_something_that_comes_while_the_probe_waits_is_enough(
    progress: Progress, probed: Probed
):
    with progress.generating():
        await later()
        asking = asyncio.create_task(progress.stalled())
        await asyncio.sleep(0)
        progress.moved()
        assert not await asking
    assert probed.asked == 1


async def test_callers_that_leave_do_not_hide_a_stall(progress: Progress, probed: Probed):
    with pytest.raises(TimeoutError), progress.generating():
        raise TimeoutError
    await later()
    with progress.generating():
        assert await progress.stalled()


async def test_a_generation_that_ends_well_shows_that_the_others_go_on(
    progress: Progress, probed: Probed
):
    with progress.generating():
        await later()
        with progress.generating():
            pass
        assert not await progress.stalled()
    assert probed.asked == 0


async def test_an_engine_that_is_gone_is_for_others_to_see(progress: Progress, probed: Probed):
    probed.error = EngineUnavailable("gone")
    with progress.generating():
        await later()
        assert not await progress.stalled()
