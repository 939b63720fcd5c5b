from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.comparison import Comparison
from models.release import load_release
from models.rubric import Rubric
from service.engines.scripted import ScriptedEngine
from service.errors import ContextExceeded, EngineUnavailable, NotFound
from service.evaluators import (
    EvaluatorInvalid,
    GuardedEvaluator,
    Opinion,
    Roster,
    Surroundings,
    build_roster,
)
from service.evaluators.scripted import ScriptedEvaluator
from service.judging import Judge
from service.metrics import Metrics
from service.settings import EvaluatorSettings

pytestmark = pytest.mark.anyio

COMPARISON = Comparison("How many?", ("One.", "Two."))
RUBRIC = Rubric("1. Count (100%)")
SCRIPTED = "service.evaluators.scripted:ScriptedEvaluator"


def roster(**evaluators: ScriptedEvaluator) -> Roster:
    metrics = Metrics(CollectorRegistry())
    settings = EvaluatorSettings(kind="tests", attempts=1, timeout_s=0.05)
    return Roster({n: GuardedEvaluator(n, e, settings, metrics) for n, e in evaluators.items()})


def raising(error: Exception) -> ScriptedEvaluator:
    def script(_: Comparison, __: Rubric) -> Opinion:
        raise error

    return ScriptedEvaluator(script)


def built(around: Surroundings, **settings: Any) -> Roster:
    asked = {name: EvaluatorSettings(**one) for name, one in settings.items()}
    return build_roster(asked, around, Metrics(CollectorRegistry()))


async def test_one_that_fails_in_whatever_way_costs_the_others_nothing():
    asked = roster(
        good=ScriptedEvaluator(lambda *_: Opinion.of(0.7)),
        shy=ScriptedEvaluator(lambda *_: Opinion.abstains("unreadable")),
        slow=ScriptedEvaluator(seconds=3600),
        gone=raising(EngineUnavailable("gone")),
        short=raising(ContextExceeded("too long")),
        buggy=raising(ZeroDivisionError()),
    )
    names = tuple(one.name for one in asked)
    voices = await asked.ask(names, COMPARISON, RUBRIC, "batch", 60)
    assert [(voice.name, voice.opinion.status) for voice in voices] == [
        ("good", "ok"),
        ("shy", "abstain"),
        ("slow", "timeout"),
        ("gone", "unavailable"),
        ("short", "unavailable"),
        ("buggy", "unavailable"),
    ]
    assert [voice.opinion.preferred for voice in voices] == [1, *[None] * 5]
    assert voices[2].opinion.latency_s > 0


async def test_all_are_asked_at_the_same_time(until):
    one, other = ScriptedEvaluator(seconds=3600), ScriptedEvaluator(seconds=3600)
    asked = roster(one=one, other=other)
    asking = asyncio.create_task(asked.ask(("other", "one"), COMPARISON, RUBRIC, "batch", 60))
    await until(lambda: one.running + other.running == 2)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (one.cancelled, other.cancelled) == (1, 1)


async def test_an_unknown_name_is_not_found_before_anybody_is_asked():
    one = ScriptedEvaluator()
    with pytest.raises(NotFound, match=r"no evaluator of this name .* there is one$"):
        await roster(one=one).ask(("one", "other"), COMPARISON, RUBRIC, "batch", 60)
    assert one.asked == []


async def test_closing_closes_every_one():
    one, other = ScriptedEvaluator(), ScriptedEvaluator()
    await roster(one=one, other=other).close()
    assert one.closed
    assert other.closed


def test_the_judge_itself_is_always_there_and_the_proxy_where_there_is_one(
    around: Surroundings, proxy_release: str
):
    assert [one.name for one in built(around)] == ["self"]
    release = load_release(proxy_release)
    judge = Judge(release.judge, ScriptedEngine())
    paired = Surroundings(release, judge, ScriptedEngine())
    assert [one.name for one in built(paired)] == ["self", "proxy"]


def test_the_settings_add_to_them_and_may_say_otherwise(around: Surroundings):
    found = built(
        around,
        self={"kind": "self", "timeout_s": 5, "options": {"depth": "verdict"}},
        mine={"kind": SCRIPTED, "weight": 3},
    )
    assert [(one.name, one.settings.weight) for one in found] == [("self", 1), ("mine", 3)]
    assert found.named("self").settings.timeout_s == 5


def test_one_that_cannot_be_built_is_refused(around: Surroundings):
    with pytest.raises(EvaluatorInvalid, match="evaluator 'self' of kind 'self': depth: "):
        built(around, self={"kind": "self", "options": {"depth": "deep"}})
