from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from models.comparison import Comparison
from models.judgement import read_judgement, read_rubric
from models.prompts import FilledPrompt
from models.release import Release
from models.rubric import Rubric
from service.engines import Generation, GenerationRequest
from service.engines.scripted import ScriptedEngine
from service.errors import ContextExceeded, EngineUnavailable

pytestmark = pytest.mark.anyio

COMPARISON = Comparison("How many?", ("One.", "Two."))


@pytest.fixture
def prompt(release: Release) -> FilledPrompt:
    return release.judge.prompts["write_rubric"].fill(COMPARISON, release.judge.neutralise)


@pytest.fixture
def request_(prompt: FilledPrompt) -> GenerationRequest:
    return GenerationRequest(prompt, max_tokens=500, stop=("</answer>",), read_labels=True)


async def started(*args: object, **options: object) -> ScriptedEngine:
    engine = ScriptedEngine(*args, **options)  # pyright: ignore[reportArgumentType]
    await engine.start()
    return engine


async def test_the_same_prompt_gets_the_same_answer(request_: GenerationRequest):
    first, second = await started(), await started()
    assert await first.generate(request_) == await second.generate(request_)


async def test_any_change_of_the_prompt_changes_the_probability(
    release: Release, request_: GenerationRequest
):
    engine = await started()
    seen: set[float] = set()
    for number in range(20):
        changed = replace(COMPARISON, question=f"How many? {number}")
        prompt = release.judge.prompts["write_rubric"].fill(changed, release.judge.neutralise)
        labels = (await engine.generate(replace(request_, prompt=prompt))).labels
        assert labels is not None
        seen.add(labels.first)
    assert len(seen) == 20


async def test_its_default_answer_is_a_readable_judgement_that_agrees_with_its_labels(
    release: Release, request_: GenerationRequest
):
    engine = await started()
    verdicts: set[int] = set()
    for number in range(20):
        changed = replace(COMPARISON, question=f"How many? {number}")
        prompt = release.judge.prompts["write_rubric"].fill(changed, release.judge.neutralise)
        answer = await engine.generate(replace(request_, prompt=prompt))
        written = read_judgement(answer.text)
        assert answer.labels is not None
        assert (answer.labels.first > answer.labels.second) == (written.preferred == 1)
        mass = math.exp(answer.labels.first) + math.exp(answer.labels.second)
        assert mass == pytest.approx(1)
        verdicts.add(written.preferred)
    assert verdicts == {1, 2}


async def test_it_goes_on_from_wherever_the_request_begins(
    release: Release, request_: GenerationRequest
):
    engine = await started()
    rubric = await engine.generate(replace(request_, stop=("</rubric>",), read_labels=False))
    assert read_rubric(rubric.text).criteria[0].weight == pytest.approx(0.7)
    assert rubric.labels is None
    given = release.judge.prompts["rubric_given"].fill(
        COMPARISON, release.judge.neutralise, Rubric("1. Truth (100%)")
    )
    evaluation = await engine.generate(replace(request_, prompt=given))
    assert read_judgement(evaluation.text, "evaluation").rubric is None
    begun = await engine.generate(replace(request_, prefill=f"{rubric.text}\n"))
    assert read_judgement(begun.text, "evaluation").rubric is None
    verdict = await engine.generate(replace(request_, max_tokens=1))
    assert verdict.text in ("1", "2")
    assert verdict.labels is not None


async def test_it_generates_only_between_start_and_stop(request_: GenerationRequest):
    engine = ScriptedEngine()
    assert engine.state == "stopped"
    with pytest.raises(EngineUnavailable):
        await engine.generate(request_)
    await engine.start()
    assert engine.state == "ready"
    await engine.generate(request_)
    engine.fail()
    assert engine.state == "down"
    with pytest.raises(EngineUnavailable, match="the engine is down"):
        await engine.generate(request_)
    await engine.start()
    await engine.generate(request_)
    await engine.stop()
    assert engine.state == "stopped"
    assert len(engine.requests) == 2


async def test_a_script_may_answer_with_a_text_a_generation_or_an_error(
    request_: GenerationRequest,
):
    def refuses(_: GenerationRequest) -> str:
        raise ContextExceeded("too long")

    assert (await (await started(lambda _: "hm")).generate(request_)).text == "hm"
    assert (await (await started(lambda _: "hm")).generate(request_)).labels is None
    whole = Generation("1", truncated=True, prompt_tokens=7, completion_tokens=1)
    assert await (await started(lambda _: whole)).generate(request_) is whole
    engine = await started(refuses)
    with pytest.raises(ContextExceeded, match="too long"):
        await engine.generate(request_)
    assert (engine.running, engine.cancelled) == (0, 0)


async def test_it_knows_what_is_running_and_what_was_cancelled(request_: GenerationRequest):
    engine = await started(None, 60)
    works = [asyncio.create_task(engine.generate(request_)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert (engine.running, engine.cancelled, len(engine.requests)) == (3, 0, 3)
    works[0].cancel()
    await asyncio.sleep(0.01)
    assert (engine.running, engine.cancelled) == (2, 1)
    for work in works[1:]:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)
    assert (engine.running, engine.cancelled) == (0, 3)


async def test_a_start_may_take_time_and_may_fail(request_: GenerationRequest, until):
    engine = ScriptedEngine(start_s=0.02, failing_starts=1)
    await engine.start()
    assert engine.state == "starting"
    with pytest.raises(EngineUnavailable, match="the engine is starting"):
        await engine.generate(request_)
    await until(lambda: engine.state == "down")
    await engine.start()
    await until(lambda: engine.state == "ready")
    assert (await engine.generate(request_)).text
    assert engine.starts == 2


async def test_stopping_ends_a_start():
    engine = ScriptedEngine(start_s=0.02)
    await engine.start()
    await engine.stop()
    await asyncio.sleep(0.05)
    assert engine.state == "stopped"


async def test_what_is_in_work_is_counted_and_need_not_be_kept(request_: GenerationRequest):
    engine = await started(seconds=60, keeps_requests=False)
    asking = asyncio.create_task(engine.generate(request_))
    while not engine.running:
        await asyncio.sleep(0)
    assert (engine.running, engine.requests) == (1, [])
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert engine.running == 0
