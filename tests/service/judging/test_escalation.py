"""Order escalate: the swap, then votes, each only while it is undecided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from models.comparison import Comparison
from models.release import Release
from models.rubric import Rubric
from service.engines import Generation, GenerationRequest, LabelLogprobs
from service.engines.scripted import ScriptedEngine
from service.judging import Escalation, Judge, Judgement, JudgingOptions

pytestmark = pytest.mark.anyio

COMPARISON = Comparison("How many circles?", ("ALPHA", "BETA"))
RUBRIC = Rubric("1. Count (100%): it is right.")
ESCALATE = JudgingOptions(
    depth="verdict", order="escalate", seed=7, escalation=Escalation(0.25, 2, 0.5)
)


def is_swapped(request: GenerationRequest) -> bool:
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    return text.index("BETA") < text.index("ALPHA")


def verdict(first: float) -> Generation:
    labels = LabelLogprobs(math.log(first), math.log(1 - first))
    return Generation("1" if first >= 0.5 else "2", False, 100, 1, labels=labels)


async def judged(
    release: Release,
    alpha: Callable[[GenerationRequest], float | None],
    options: JudgingOptions = ESCALATE,
) -> tuple[Judgement, list[GenerationRequest]]:
    """Judges by verdicts that say how likely ALPHA is the better one; None cannot be read."""

    def script(request: GenerationRequest) -> Generation:
        likely = alpha(request)
        if likely is None:
            return Generation("?", False, 100, 1)
        return verdict(1 - likely if is_swapped(request) else likely)

    engine = ScriptedEngine(script)
    await engine.start()
    found = await Judge(release.judge, engine).judge(COMPARISON, options, RUBRIC)
    return found, engine.requests


async def test_a_sure_first_pass_is_all_there_is(release: Release):
    found, requests = await judged(release, lambda _: 0.95)
    assert (found.stopped, found.preferred, found.usage.calls) == ("sure", 1, 1)
    assert found.order_consistent is None
    assert len(requests) == 1


async def test_a_swapped_order_that_agrees_ends_the_doubt(release: Release):
    found, requests = await judged(release, lambda r: 0.1 if is_swapped(r) else 0.2)
    assert (found.stopped, found.preferred, found.usage.calls) == ("agreed", 2, 2)
    assert found.probability == pytest.approx(0.15)
    assert [is_swapped(request) for request in requests] == [False, True]


async def test_votes_in_both_orders_follow_where_the_orders_disagree(release: Release):
    def alpha(request: GenerationRequest) -> float:
        if request.temperature > 0:
            return 0.95
        return 0.3 if is_swapped(request) else 0.8

    found, requests = await judged(release, alpha)
    assert found.stopped == "voted"
    assert found.probability == pytest.approx(((0.8 + 1.9) / 3 + (0.3 + 1.9) / 3) / 2)
    assert (found.preferred, found.usage.calls) == (1, 6)
    votes = requests[2:]
    assert {request.temperature for request in votes} == {0.5}
    assert sorted(request.seed for request in votes) == [8, 8, 9, 9]
    assert sum(is_swapped(request) for request in votes) == 2


async def test_doubt_that_votes_do_not_end_is_said(release: Release):
    found, _ = await judged(release, lambda r: 0.1 if is_swapped(r) else 0.8)
    assert (found.stopped, found.usage.calls) == ("undecided", 6)
    assert found.probability == pytest.approx(0.45)
    assert found.preferred == 2
    assert found.order_consistent is False


@pytest.mark.parametrize(("band", "stopped", "calls"), [(0.3, "agreed", 2), (0.31, "undecided", 6)])
async def test_the_second_band_says_what_undecided_is(
    band: float, stopped: str, calls: int, release: Release
):
    options = replace(ESCALATE, escalation=replace(ESCALATE.escalation, band=band))
    found, _ = await judged(release, lambda _: 0.8 + 1e-9, options)
    assert (found.stopped, found.usage.calls) == (stopped, calls)


async def test_votes_may_rescue_an_order_that_could_not_be_read(release: Release):
    def alpha(request: GenerationRequest) -> float | None:
        return 0.9 if request.temperature > 0 or is_swapped(request) else None

    found, _ = await judged(release, alpha)
    assert (found.stopped, found.reason) == ("voted", None)
    assert found.probability == pytest.approx(0.9)


async def test_what_nobody_can_read_stays_an_abstention(release: Release):
    found, _ = await judged(release, lambda _: None)
    assert (found.stopped, found.reason) == ("undecided", "unreadable")
    assert (found.preferred, found.probability) == (None, None)


async def test_a_disagreement_that_was_asked_for_outlives_the_votes(release: Release):
    options = replace(ESCALATE, require_consistent=True)
    found, _ = await judged(release, lambda r: 0.1 if is_swapped(r) else 0.8, options)
    assert (found.reason, found.probability, found.usage.calls) == ("disagreement", None, 6)


async def test_at_full_depth_doubt_is_read_before_the_evaluation(release: Release):
    def script(request: GenerationRequest) -> Generation:
        likely = 0.6 if request.max_tokens == 1 else 0.99
        first = 1 - likely if is_swapped(request) else likely
        if request.max_tokens == 1:
            return verdict(first)
        text = f"<eval>\nSo.\n</eval>\n<answer>{1 if first >= 0.5 else 2}</answer>"
        return replace(verdict(first), text=text)

    engine = ScriptedEngine(script)
    await engine.start()
    options = replace(ESCALATE, depth="full")
    found = await Judge(release.judge, engine).judge(COMPARISON, options, RUBRIC)
    assert (found.stopped, found.usage.calls) == ("agreed", 3)
    assert found.probability == pytest.approx(0.99)
