from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.judgement import RUBRIC_END
from models.rubric import Rubric
from service.calls import Call, GivenRubric
from service.consulting import Settled
from service.engines import Generation, GenerationRequest, LabelLogprobs
from service.engines.scripted import ScriptedEngine
from service.errors import ContextExceeded, EngineUnavailable, InvalidRequest
from service.judging import Judgement, JudgingOptions, Opinion, Usage, Voice
from service.metrics import Metrics
from service.rubric_gate import Attempt, Gated, RubricGate, drafting_seed
from service.settings import GateSettings

pytestmark = pytest.mark.anyio

CALL = Call("How many?", ("One.", "Two."), evaluators=("proxy",), rubric_attempts=3)
LONG_S = 3600.0
JUDGEMENT = Judgement(
    passes=(),
    rubric=Rubric("1. Count (100%)"),
    evaluation=None,
    preferred=1,
    probability=0.9,
    order_consistent=None,
    stopped="complete",
    reason=None,
    usage=Usage(100, 10, 0, 1),
    injection_attempts=0,
)
AGREES, DIFFERS = Opinion.of(0.9, Usage(7, 1, 0, 1)), Opinion.of(0.2, Usage(7, 1, 0, 1))
LATE, FAILS = Opinion("timeout"), Opinion("unavailable")
MUMBLES = Opinion.abstains("unreadable")


def attempt(*opinions: Opinion, preferred: Any = 1, cached: bool = False) -> Attempt:
    """A judgement of which evaluators a, b, … think so."""
    voices = tuple(Voice(n, 1.0, o) for n, o in zip("abcd", opinions, strict=False))
    settled = Settled(replace(JUDGEMENT, preferred=preferred), voices)
    return Attempt.of(settled, preferred, ("a", "b", "c", "d"), cached=cached)


class Trying:
    """A gate through which these attempts go, an error for one that fails."""

    def __init__(self, *attempts: Attempt | Exception, **settings: Any) -> None:
        self.attempts = attempts
        self.calls: list[Call] = []
        self.metrics = Metrics(CollectorRegistry())
        self.gate = RubricGate(GateSettings(**settings), self.metrics)

    async def __call__(self, call: Call = CALL, left_s: float = LONG_S) -> Gated:
        async def make(drafting: Call) -> Attempt:
            self.calls.append(drafting)
            made = self.attempts[len(self.calls) - 1]
            if isinstance(made, Exception):
                raise made
            return made

        return await self.gate.through(call, make, time.monotonic() + left_s)

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def test_a_rubric_that_evaluators_reach_the_verdict_by_is_the_last_one():
    trying = Trying(attempt(DIFFERS), attempt(AGREES), attempt(AGREES))
    found = await trying()
    assert (found.stopped, len(found.attempts), len(trying.calls)) == ("agreed", 2, 2)
    assert found.taken.agreement == 1.0
    assert trying.count("proxy_grm_rubric_gate_total", stopped="agreed") == 1
    assert trying.count("proxy_grm_rubric_attempts_sum") == 2


async def test_it_ends_with_what_is_allowed_and_takes_the_best_of_it_the_first_of_equals():
    half, none = attempt(AGREES, DIFFERS), attempt(DIFFERS, DIFFERS)
    found = await Trying(none, half, replace(half, cached=True))()
    assert found.stopped == "attempts"
    assert [one.agreement for one in found.attempts] == [0.0, 0.5, 0.5]
    assert (found.taken.agreement, found.taken.cached) == (0.5, False)


async def test_what_is_enough_is_a_setting():
    found = await Trying(attempt(AGREES, DIFFERS), agreement=0.5)()
    assert (found.stopped, len(found.attempts)) == ("agreed", 1)


async def test_the_cost_is_that_of_all_attempts_the_evaluators_included():
    found = await Trying(attempt(DIFFERS, LATE), attempt(AGREES, AGREES))()
    settled = found.taken.settled
    assert settled.judgement.usage == Usage(200, 20, 0, 2)
    assert [voice.opinion.usage.calls for voice in settled.voices] == [2, 1]
    assert [voice.opinion.preferred for voice in settled.voices] == [1, 1]


@pytest.mark.parametrize("opinions", [(), (LATE,), (FAILS,), (MUMBLES,), (LATE, FAILS, MUMBLES)])
async def test_a_failure_of_every_evaluator_is_neither_agreement_nor_disagreement(
    opinions: tuple[Opinion, ...],
):
    trying = Trying(attempt(*opinions))
    found = await trying()
    assert (found.stopped, found.taken.agreement) == ("unchecked", None)
    assert len(trying.calls) == 1


async def test_beside_a_failure_the_others_decide():
    found = await Trying(attempt(AGREES, FAILS, LATE, MUMBLES))()
    assert (found.stopped, found.taken.agreement) == ("agreed", 1.0)
    found = await Trying(attempt(DIFFERS, FAILS), attempt(FAILS, FAILS))()
    assert (found.stopped, found.taken.agreement) == ("unchecked", 0.0)


async def test_without_a_verdict_there_is_nothing_to_reach_but_a_draft_may_fail():
    found = await Trying(attempt(AGREES, preferred=None))()
    assert (found.stopped, found.taken.agreement) == ("unchecked", None)
    found = await Trying(attempt(DIFFERS), attempt(preferred=None), attempt(AGREES))()
    assert (found.stopped, len(found.attempts)) == ("agreed", 3)
    found = await Trying(attempt(DIFFERS), attempt(preferred=None), attempt(preferred=None))()
    assert (found.stopped, found.taken.preferred) == ("attempts", 1)


@pytest.mark.parametrize("error", [EngineUnavailable("gone"), ContextExceeded("too long")])
async def test_an_error_of_a_further_attempt_costs_not_the_judgement_that_is_there(
    error: Exception,
):
    trying = Trying(attempt(DIFFERS), error)
    found = await trying()
    assert (found.stopped, len(found.attempts), found.taken.preferred) == ("failed", 1, 1)
    with pytest.raises(type(error)):
        await Trying(error)()


async def test_a_surprise_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        await Trying(attempt(DIFFERS), ZeroDivisionError())()


async def test_no_attempt_begins_for_which_there_is_no_time():
    found = await Trying(attempt(DIFFERS), attempt(AGREES))(left_s=0)
    assert (found.stopped, len(found.attempts)) == ("deadline", 1)


async def test_an_attempt_that_takes_too_long_is_stopped_and_the_judgement_arrives():
    gate = RubricGate(GateSettings(), Metrics(CollectorRegistry()))
    cancelled = False

    async def make(call: Call) -> Attempt:
        nonlocal cancelled
        if call.options.drafting is not None:
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                cancelled = True
                raise
        return attempt(DIFFERS)

    found = await gate.through(CALL, make, time.monotonic() + 0.1)
    assert (found.stopped, len(found.attempts), cancelled) == ("deadline", 1, True)


async def test_drafts_are_sampled_each_with_its_own_seed_and_always_the_same():
    async def drafted(**options: Any) -> list[Any]:
        trying = Trying(*[attempt(DIFFERS)] * 3, temperature=0.6)
        await trying(replace(CALL, options=JudgingOptions(**options)))
        assert trying.calls[0].options == JudgingOptions(**options)
        assert all(one.options.temperature == options.get("temperature", 0) for one in trying.calls)
        return [one.options.drafting for one in trying.calls[1:]]

    first = await drafted(seed=7)
    assert first == await drafted(seed=7)
    assert [one.seed for one in first] == [drafting_seed(7, 1), drafting_seed(7, 2)]
    assert {one.temperature for one in first} == {0.6}
    assert {one.temperature for one in await drafted(temperature=0.3)} == {0.3}
    assert len({drafting_seed(seed, n) for seed in range(50) for n in range(1, 8)}) == 350


@pytest.mark.parametrize(
    ("changes", "attempts"),
    [
        ({}, 3),
        ({"rubric_attempts": None}, 4),
        ({"rubric_attempts": 1}, 1),
        ({"rubric_attempts": None, "evaluators": ()}, 1),
        ({"rubric_attempts": None, "rubric": GivenRubric("1. x")}, 1),
        ({"rubric_attempts": 1, "evaluators": ()}, 1),
    ],
)
def test_a_call_says_how_many_or_the_settings_do(changes: dict[str, Any], attempts: int):
    gate = RubricGate(GateSettings(attempts=4), Metrics(CollectorRegistry()))
    assert gate.attempts(replace(CALL, **changes)) == attempts


@pytest.mark.parametrize("changes", [{"evaluators": ()}, {"rubric": GivenRubric("1. x")}])
def test_more_than_one_needs_evaluators_and_no_given_rubric(changes: dict[str, Any]):
    gate = RubricGate(GateSettings(), Metrics(CollectorRegistry()))
    with pytest.raises(InvalidRequest, match="rubric_attempts"):
        gate.attempts(replace(CALL, **changes))


def judge(request: GenerationRequest) -> Generation:
    """Writes criteria named by the seed, and is for the first response."""
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    if RUBRIC_END in request.stop:
        assert request.temperature > 0
        return Generation(f"<rubric>\n1. Seed {request.seed} (100%)\n</rubric>", False, 50, 5)
    written = "<rubric>" in request.prefill or "<rubric>" in text
    own = "" if written else "<rubric>\n1. Greedy (100%)\n</rubric>\n"
    labels = LabelLogprobs(math.log(0.8), math.log(0.2))
    return Generation(f"{own}<eval>…</eval>\n<answer>1</answer>", False, 100, 20, labels=labels)


def proxy(likes: str) -> Callable[[GenerationRequest], Generation]:
    """Reaches the judge's verdict by criteria of that name alone."""

    def script(request: GenerationRequest) -> Generation:
        text = "".join(part for part in request.prompt.user if isinstance(part, str))
        first = 0.9 if re.search(f"1. {likes} ", text) else 0.1
        labels = LabelLogprobs(math.log(first), math.log(1 - first))
        answer = f"<eval>…</eval>\n<answer>{1 if first > 0.5 else 2}</answer>"
        return Generation(answer, False, 60, 6, labels=labels)

    return script


GATED = {"evaluators": ["proxy"], "rubric_attempts": 3}


@pytest.fixture
def start(start_gateway: Any, proxy_release: str) -> Any:
    """Starts a gateway whose proxy likes criteria of one name."""

    async def started(likes: str, script: Any = judge, **settings: Any) -> Any:
        engine = ScriptedEngine(proxy(likes))
        return await start_gateway(script, proxy=engine, release=proxy_release, **settings)

    return started


async def test_a_rubric_that_does_not_transfer_is_drafted_again(start: Any):
    seed = drafting_seed(7, 2)
    gateway = await start(f"Seed {seed}")
    found = (await gateway.score(seed=7, **GATED)).json()
    assert (found["status"], found["preferred"], found["agreement"]) == ("ok", 1, 1.0)
    assert found["rubric"]["text"] == f"1. Seed {seed} (100%)"
    assert found["gate"]["stopped"] == "agreed"
    assert [one["agreement"] for one in found["gate"]["attempts"]] == [0.0, 0.0, 1.0]
    assert {one["preferred"] for one in found["gate"]["attempts"]} == {1}
    assert found["gate"]["attempts"][2]["rubric"] == found["rubric"]["id"]
    assert len({one["rubric"] for one in found["gate"]["attempts"]}) == 3
    assert found["usage"]["calls"] == len(gateway.engine.requests) == 5
    assert found["evaluators"][0]["usage"]["calls"] == len(gateway.proxy.requests) == 3
    assert found["cached"] is False
    assert found["verdicts"][0]["text"].startswith(f"<rubric>\n1. Seed {seed} (100%)\n</rubric>\n")
    _, draft, judged, *_ = gateway.engine.requests
    assert (draft.temperature, draft.seed) == (0.7, drafting_seed(7, 1))
    assert (judged.temperature, judged.seed, judged.read_labels) == (0.0, 7, True)
    assert gateway.count("proxy_grm_rubric_gate_total", stopped="agreed") == 1


@pytest.mark.parametrize("order", ["both", "adaptive"])
@pytest.mark.parametrize("depth", ["full", "verdict"])
async def test_every_way_of_judging_drafts_once_and_reuses_the_draft(
    order: str, depth: str, start: Any
):
    def script(request: GenerationRequest) -> Generation:
        if request.max_tokens == 1:
            return replace(judge(request), text="1")
        if RUBRIC_END in request.stop and request.temperature == 0:
            return Generation("<rubric>\n1. Greedy (100%)\n</rubric>", False, 50, 5)
        return judge(request)

    gateway = await start(f"Seed {drafting_seed(0, 1)}", script)
    answer = await gateway.score(order=order, depth=depth, **GATED)
    found = answer.json()
    assert [one["agreement"] for one in found["gate"]["attempts"]] == [0.0, 1.0]
    drafts = [r for r in gateway.engine.requests if RUBRIC_END in r.stop and r.temperature > 0]
    assert len(drafts) == 1


async def test_the_first_attempt_may_be_kept_and_only_it_is(start: Any):
    gateway = await start("Greedy")
    first, again = [(await gateway.score(**GATED)).json() for _ in range(2)]
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["gate"] == first["gate"]
    gateway = await start("nothing")
    for _ in range(2):
        found = (await gateway.score(**GATED)).json()
        assert (found["gate"]["stopped"], found["cached"]) == ("attempts", False)
        assert found["rubric"]["text"] == "1. Greedy (100%)"


async def test_the_settings_switch_it_on_for_whoever_names_evaluators(start: Any):
    gateway = await start("nothing", judging={"gate": {"attempts": 2}})
    named = (await gateway.score(evaluators=["proxy"])).json()
    assert len(named["gate"]["attempts"]) == 2
    for changes in ({}, {"evaluators": ["proxy"], "rubric": {"text": "1. Mine (100%)"}}):
        assert (await gateway.score(**changes)).json()["gate"] is None
    one = (await gateway.score(evaluators=["proxy"], rubric_attempts=1)).json()
    assert one["gate"] is None


async def test_a_batch_goes_through_it_too(start: Any):
    gateway = await start("Greedy")
    line = (
        '{"question": "?", "responses": ["a", "b"], "evaluators": ["proxy"], "rubric_attempts": 2}'
    )
    found = (await gateway.client.post("/score/batch", content=line.encode())).json()
    assert found["gate"]["stopped"] == "agreed"


@pytest.mark.parametrize("changes", [{"evaluators": []}, {"rubric": {"text": "1. Mine (100%)"}}])
async def test_there_must_be_something_to_try_it_on(changes: dict[str, Any], start: Any):
    gateway = await start("Greedy")
    answer = await gateway.score(**GATED | changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "rubric_attempts" in answer.json()["detail"]
    assert gateway.engine.requests == []


@pytest.mark.parametrize("attempts", [0, 9, "2", 1.5])
async def test_attempts_are_few_and_a_number(attempts: object, start: Any):
    answer = await (await start("Greedy")).score(**GATED | {"rubric_attempts": attempts})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_whoever_goes_away_stops_the_drafting(start: Any, until: Any):
    gateway = await start("nothing", listening=True)
    gateway.engine.seconds = 0.1
    asking = asyncio.create_task(gateway.score(**GATED))
    await until(lambda: len(gateway.engine.requests) == 2, 60)
    asking.cancel()
    await until(lambda: gateway.engine.running == 0, 60)
    assert len(gateway.engine.requests) <= 3
