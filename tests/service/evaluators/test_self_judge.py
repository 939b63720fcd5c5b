from __future__ import annotations

import math

import pytest

from models.comparison import Comparison
from models.release import Release
from models.rubric import Rubric
from service.engines import Generation, GenerationRequest, LabelLogprobs
from service.engines.scripted import ScriptedEngine
from service.evaluators import Opinion
from service.evaluators.self_judge import SelfConfig, SelfEvaluator
from service.judging import Judge

pytestmark = pytest.mark.anyio

COMPARISON = Comparison("How many?", ("ALPHA", "BETA"))
RUBRIC = Rubric("1. Count (100%)")


def likes_the_first(request: GenerationRequest) -> Generation:
    text = "1" if request.max_tokens == 1 else "<eval>\nSo.\n</eval>\n<answer>1</answer>"
    labels = LabelLogprobs(math.log(0.6), math.log(0.3))
    return Generation(text, False, 100, 10, labels=labels)


async def opinion(
    release: Release, config: SelfConfig, script=likes_the_first
) -> tuple[Opinion, list[GenerationRequest]]:
    engine = ScriptedEngine(script)
    await engine.start()
    evaluator = SelfEvaluator(Judge(release.judge, engine), config)
    return await evaluator.evaluate(COMPARISON, RUBRIC, "batch"), engine.requests


async def test_the_judge_starts_anew_from_the_rubric(release: Release):
    found, [request] = await opinion(release, SelfConfig())
    assert (found.status, found.preferred) == ("ok", 1)
    assert found.probability == pytest.approx(2 / 3)
    assert found.label_mass == pytest.approx(0.9)
    assert found.usage.calls == 1
    assert request.priority == "batch"
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    assert "1. Count (100%)" in text


async def test_depth_and_order_are_settings(release: Release):
    found, requests = await opinion(release, SelfConfig(depth="verdict", order="both"))
    assert [request.max_tokens for request in requests] == [1, 1]
    assert found.probability == pytest.approx(0.5)


async def test_what_cannot_be_read_is_an_abstention(release: Release):
    found, _ = await opinion(release, SelfConfig(), lambda _: Generation("1", True, 9, 1))
    assert (found.status, found.reason, found.preferred) == ("abstain", "truncated", None)
