from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.comparison import Comparison
from models.rubric import Rubric
from service.calls import Call, Timing
from service.consulting import Consulting
from service.errors import NotFound
from service.evaluators import GuardedEvaluator, Opinion, Roster
from service.evaluators.scripted import ScriptedEvaluator
from service.judging import Judgement, Usage
from service.metrics import Metrics
from service.settings import (
    CacheSettings,
    EscalationSettings,
    EvaluatorSettings,
    JudgingSettings,
)
from service.store import Store

pytestmark = pytest.mark.anyio

COMPARISON = Comparison("How many?", ("One.", "Two."))
CALL = Call("How many?", ("One.", "Two."))
UNDECIDED = Judgement(
    passes=(),
    rubric=Rubric("1. Count (100%)"),
    evaluation=None,
    preferred=1,
    probability=0.6,
    order_consistent=False,
    stopped="undecided",
    reason=None,
    usage=Usage(calls=6),
    injection_attempts=0,
)


class Asking:
    """Consulting with evaluators that have these opinions, and no Redis to keep a record in."""

    def __init__(self, stronger: str | None, **opinions: Opinion) -> None:
        self.evaluators = {n: ScriptedEvaluator(lambda *_, o=o: o) for n, o in opinions.items()}
        metrics = Metrics(CollectorRegistry())
        settings = EvaluatorSettings(kind="tests", weight=3)
        guarded = {n: GuardedEvaluator(n, e, settings, metrics) for n, e in self.evaluators.items()}
        store = Store("unix:///no.socket", CacheSettings(), metrics)
        judging = JudgingSettings(escalation=EscalationSettings(evaluator=stronger))
        self.metrics = metrics
        self.consulting = Consulting(Roster(guarded), store, metrics, judging)

    async def settle(self, judgement: Judgement, **changes: Any):
        call = replace(CALL, **changes)
        return await self.consulting.settle(call, COMPARISON, judgement, Timing())


async def test_the_stronger_evaluator_decides_what_was_left_undecided():
    asking = Asking("big", big=Opinion.of(0.1), other=Opinion.of(0.9))
    found = await asking.settle(UNDECIDED)
    assert found.judgement.stopped == "evaluator"
    assert found.judgement.probability == pytest.approx((0.6 + 3 * 0.1) / 4)
    assert found.judgement.preferred == 2
    assert [voice.name for voice in found.voices] == ["big"]
    assert asking.evaluators["other"].asked == []


@pytest.mark.parametrize("stopped", ["complete", "sure", "agreed", "voted"])
async def test_it_is_not_asked_of_what_is_decided(stopped: Any):
    asking = Asking("big", big=Opinion.of(0.1))
    found = await asking.settle(replace(UNDECIDED, stopped=stopped))
    assert (found.judgement.stopped, found.judgement.probability) == (stopped, 0.6)
    assert (found.voices, found.panel) == ((), None)
    assert asking.evaluators["big"].asked == []


async def test_one_that_was_named_anyway_is_asked_once():
    asking = Asking("big", big=Opinion.prefers(2), other=Opinion.of(0.9))
    found = await asking.settle(UNDECIDED, evaluators=("big", "other"))
    assert [voice.name for voice in found.voices] == ["big", "other"]
    assert len(asking.evaluators["big"].asked) == 1
    assert found.judgement.probability == pytest.approx(0.6 / 4)
    assert found.panel is not None
    assert found.panel.probability == pytest.approx((0.6 + 0 + 3 * 0.9) / 7)


@pytest.mark.parametrize("opinion", [Opinion.abstains("unreadable"), Opinion("timeout")])
async def test_without_its_opinion_the_judgement_stays_undecided(opinion: Opinion):
    found = await Asking("big", big=opinion).settle(UNDECIDED)
    assert found.judgement == UNDECIDED
    assert found.voices[0].opinion.preferred is None
    assert found.panel is None  # one alone is none


async def test_it_speaks_for_a_judge_that_could_not_be_read():
    unread = replace(UNDECIDED, preferred=None, probability=None, reason="unreadable")
    found = await Asking("big", big=Opinion.of(0.2)).settle(unread)
    assert (found.judgement.reason, found.judgement.stopped) == (None, "evaluator")
    assert found.judgement.preferred == 2
    assert found.judgement.probability == pytest.approx(0.2)


async def test_an_abstention_for_disagreement_was_asked_for_and_stays():
    unsure = replace(UNDECIDED, preferred=None, probability=None, reason="disagreement")
    found = await Asking("big", big=Opinion.of(0.2)).settle(unsure)
    assert found.judgement == unsure


async def test_where_nobody_is_named_undecided_stays_undecided():
    found = await Asking(None, big=Opinion.of(0.2)).settle(UNDECIDED)
    assert (found.judgement, found.voices) == (UNDECIDED, ())


async def test_verdict_tokens_of_evaluators_that_hold_little_of_the_labels_are_counted():
    weak, strong = (replace(Opinion.of(0.9), label_mass=mass) for mass in (0.3, 0.99))
    asking = Asking(None, weak=weak, strong=strong, silent=Opinion.prefers(1))
    await asking.settle(UNDECIDED, evaluators=("weak", "strong", "silent"))
    count = asking.metrics.registry.get_sample_value
    assert count("proxy_grm_label_mass_count", {"source": "evaluator"}) == 2
    assert count("proxy_grm_low_label_mass_total", {"source": "evaluator"}) == 1
    assert count("proxy_grm_low_label_mass_total", {"source": "judge"}) == 0


async def test_without_a_rubric_nobody_is_asked():
    asking = Asking("big", big=Opinion.of(0.2))
    found = await asking.settle(replace(UNDECIDED, rubric=None), evaluators=("big",))
    assert (found.voices, found.panel) == ((), None)
    assert asking.evaluators["big"].asked == []


async def test_a_name_that_nobody_has_is_not_found():
    with pytest.raises(NotFound):
        Asking(None, big=Opinion.of(0.2)).consulting.check(replace(CALL, evaluators=("small",)))
