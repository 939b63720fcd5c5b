from __future__ import annotations

import asyncio

import pytest
import structlog

from models.comparison import Comparison
from models.errors import ReleaseInvalid
from models.release import Release
from service.engines import GenerationRequest
from service.engines.on_demand import OnDemandEngine
from service.engines.scripted import ScriptedEngine
from service.errors import EngineUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def request_(release: Release) -> GenerationRequest:
    judge = release.judge
    comparison = Comparison("How many?", ("One.", "Two."))
    prompt = judge.prompts["write_rubric"].fill(comparison, judge.neutralise)
    return GenerationRequest(prompt, max_tokens=500)


async def test_nothing_is_started_before_it_is_asked_for(request_: GenerationRequest):
    inner = ScriptedEngine()
    engine = OnDemandEngine(inner)
    assert (inner.starts, engine.state) == (0, "stopped")
    assert (await engine.generate(request_)).text
    assert (inner.starts, engine.state) == (1, "ready")
    await engine.generate(request_)
    assert inner.starts == 1


async def test_all_who_ask_at_once_share_one_start(request_: GenerationRequest):
    inner = ScriptedEngine(start_s=0.1)
    engine = OnDemandEngine(inner)
    answers = await asyncio.gather(*(engine.generate(request_) for _ in range(64)))
    assert len({answer.text for answer in answers}) == 1
    assert (inner.starts, len(inner.requests)) == (1, 64)


async def test_a_start_asked_for_beforehand_is_the_one_that_callers_wait_for(
    request_: GenerationRequest,
):
    inner = ScriptedEngine(start_s=0.1)
    engine = OnDemandEngine(inner)
    await engine.start()
    await engine.start()
    assert (await engine.generate(request_)).text
    await engine.start()
    assert (inner.starts, engine.state) == (1, "ready")


async def test_all_who_waited_for_a_failed_start_are_told_and_the_next_tries_again(
    request_: GenerationRequest,
):
    inner = ScriptedEngine(start_s=0.1, failing_starts=1)
    engine = OnDemandEngine(inner)
    waited = await asyncio.gather(
        *(engine.generate(request_) for _ in range(8)), return_exceptions=True
    )
    assert [type(error) for error in waited] == [EngineUnavailable] * 8
    assert len({id(error) for error in waited}) == 8
    assert all(error.retry_after_s for error in waited if isinstance(error, EngineUnavailable))
    assert (inner.starts, inner.requests, engine.state) == (1, [], "stopped")
    assert (await engine.generate(request_)).text
    assert inner.starts == 2


async def test_a_caller_that_leaves_does_not_stop_the_start(request_: GenerationRequest):
    inner = ScriptedEngine(start_s=0.2)
    engine = OnDemandEngine(inner)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await engine.generate(request_)
    assert engine.state == "starting"
    assert (await engine.generate(request_)).text
    assert (inner.starts, len(inner.requests)) == (1, 1)


async def test_every_caller_may_leave(request_: GenerationRequest, until):
    inner = ScriptedEngine(start_s=0.1, failing_starts=1)
    engine = OnDemandEngine(inner)
    callers = [asyncio.create_task(engine.generate(request_)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await until(lambda: inner.starts == 1 and engine.state == "stopped")
    assert (await engine.generate(request_)).text


async def test_an_engine_that_died_is_not_started_a_second_time_beside_its_own_repair(
    request_: GenerationRequest,
):
    inner = ScriptedEngine()
    engine = OnDemandEngine(inner)
    await engine.generate(request_)
    inner.fail()
    with pytest.raises(EngineUnavailable, match="the engine is down"):
        await engine.generate(request_)
    assert (inner.starts, engine.state) == (1, "down")
    await inner.start()  # what a supervisor does
    assert (await engine.generate(request_)).text


class Refusing(ScriptedEngine):
    """Finds at every start that its release cannot be served."""

    async def start(self) -> None:
        self.failing_starts = 1
        await super().start()
        self.refused = ReleaseInvalid("the labels in /releases/secret are one token")


async def test_what_was_refused_for_good_is_not_tried_again(request_: GenerationRequest):
    inner = Refusing()
    engine = OnDemandEngine(inner)
    assert engine.refused is None
    for _ in range(3):
        with pytest.raises(EngineUnavailable) as caught:
            await engine.generate(request_)
        assert "secret" not in caught.value.detail
    assert "start-up checks" in caught.value.detail
    assert isinstance(engine.refused, ReleaseInvalid)
    assert inner.starts == 1


class Breaking(ScriptedEngine):
    """Cannot even begin to start."""

    async def start(self) -> None:
        self.starts += 1
        raise OSError("no such device")


async def test_a_start_that_breaks_is_unavailable_too(request_: GenerationRequest):
    inner = Breaking()
    engine = OnDemandEngine(inner)
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="did not start"):
            await engine.generate(request_)
    assert inner.starts == 2


class Naming(ScriptedEngine):
    """Remembers what its start would write beside each log line."""

    async def start(self) -> None:
        self.bound = structlog.contextvars.get_contextvars()
        await super().start()


async def test_a_start_is_not_logged_as_part_of_the_request_that_caused_it(
    request_: GenerationRequest,
):
    inner = Naming()
    with structlog.contextvars.bound_contextvars(request_id="req_1"):
        await OnDemandEngine(inner).generate(request_)
    assert inner.bound == {}


async def test_stopping_ends_a_start_and_those_who_wait_for_it(request_: GenerationRequest):
    inner = ScriptedEngine(start_s=60)
    engine = OnDemandEngine(inner)
    waiting = asyncio.create_task(engine.generate(request_))
    await asyncio.sleep(0.01)
    await engine.stop()
    with pytest.raises(EngineUnavailable):
        await waiting
    assert (inner.state, engine.state) == ("stopped", "stopped")


async def test_a_stopped_engine_is_not_started_by_a_late_request(request_: GenerationRequest):
    inner = ScriptedEngine()
    engine = OnDemandEngine(inner)
    await engine.stop()
    with pytest.raises(EngineUnavailable, match="stopped"):
        await engine.generate(request_)
    assert inner.starts == 0
    await engine.start()
    assert (await engine.generate(request_)).text


async def test_stopping_what_never_started_or_twice_is_fine(request_: GenerationRequest):
    engine = OnDemandEngine(ScriptedEngine())
    await engine.stop()
    await engine.stop()
    assert engine.state == "stopped"
