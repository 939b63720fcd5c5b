from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.comparison import Comparison
from models.rubric import Rubric
from service.engines import Priority
from service.errors import ContextExceeded, DeadlineExceeded, EngineUnavailable
from service.evaluators import GuardedEvaluator, Opinion
from service.evaluators.scripted import OpinionScript, ScriptedEvaluator
from service.judging import Usage
from service.metrics import Metrics
from service.settings import EvaluatorSettings

pytestmark = pytest.mark.anyio

COMPARISON = Comparison("How many?", ("One.", "Two."))
RUBRIC = Rubric("1. Count (100%)", "One is right.")


class Guarded:
    """A guarded evaluator and what its metrics say."""

    def __init__(self, evaluator: ScriptedEvaluator, **settings: Any) -> None:
        self.evaluator = evaluator
        self.metrics = Metrics(CollectorRegistry())
        asked = EvaluatorSettings(kind="tests", **{"attempts": 1} | settings)
        self.guard = GuardedEvaluator("mine", evaluator, asked, self.metrics)

    async def ask(self, timeout_s: float = 60.0) -> Opinion:
        return await self.guard.evaluate(COMPARISON, RUBRIC, "batch", timeout_s)

    def counted(self) -> dict[str, float]:
        every = ("ok", "abstain", "timeout", "unavailable")
        found = {status: self._sample("evaluations_total", status=status) for status in every}
        return {status: count for status, count in found.items() if count}

    @property
    def is_open(self) -> float:
        return self._sample("evaluator_open")

    def _sample(self, name: str, **labels: str) -> float:
        labels = {"evaluator": "mine"} | labels
        value = self.metrics.registry.get_sample_value(f"proxy_grm_{name}", labels)
        assert value is not None
        return value


def raises(*errors: BaseException) -> OpinionScript:
    """Raises them one after the other, then has an opinion."""
    left = [*errors]

    def script(_: Comparison, __: Rubric) -> Opinion:
        if left:
            raise left.pop(0)
        return Opinion.of(0.8)

    return script


async def test_an_opinion_comes_through_with_how_long_it_took():
    asked = Guarded(ScriptedEvaluator(lambda *_: Opinion.of(0.8), seconds=0.01))
    found = await asked.ask()
    assert (found.status, found.preferred, found.probability) == ("ok", 1, 0.8)
    assert found.latency_s > 0
    assert asked.counted() == {"ok": 1}


async def test_a_justification_is_never_shown():
    asked = Guarded(ScriptedEvaluator())
    await asked.ask()
    assert asked.evaluator.asked == [(COMPARISON, Rubric("1. Count (100%)"), "batch")]


async def test_an_abstention_is_no_failure():
    asked = Guarded(ScriptedEvaluator(lambda *_: Opinion.abstains("truncated")), breaker_failures=1)
    found = await asked.ask()
    assert (found.status, found.reason, found.preferred) == ("abstain", "truncated", None)
    assert asked.counted() == {"abstain": 1}
    assert asked.is_open == 0


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        {"preferred": 1},
        Opinion("ok"),
        Opinion("ok", preferred=3),  # pyright: ignore[reportArgumentType]
        Opinion("abstain", preferred=1),
        Opinion("timeout"),
        Opinion("great", preferred=1),  # pyright: ignore[reportArgumentType]
        Opinion("ok", preferred=1, probability=1.2),
        Opinion("ok", preferred=1, probability=float("nan")),
        Opinion("ok", preferred=1, probability=0.2),
        Opinion("ok", preferred=1, probability="0.9"),  # pyright: ignore[reportArgumentType]
        Opinion("abstain"),
        Opinion("abstain", "because"),  # pyright: ignore[reportArgumentType]
        Opinion("ok", "unreadable", preferred=1),
        Opinion("ok", preferred=1, usage="lots"),  # pyright: ignore[reportArgumentType]
        Opinion("ok", preferred=1, usage=Usage(prompt_tokens=-5)),
        Opinion("ok", preferred=1, usage=Usage(calls=0.5)),  # pyright: ignore[reportArgumentType]
        Opinion("ok", preferred=1, label_mass=1.2),
        Opinion("ok", preferred=1, label_mass=float("nan")),
        Opinion("ok", preferred=1, injection_attempts=-1),
    ],
)
async def test_what_makes_no_sense_is_a_failure_and_never_a_verdict(garbage: Any):
    asked = Guarded(ScriptedEvaluator(lambda *_: garbage), breaker_failures=1)
    with pytest.raises(EngineUnavailable, match="'mine' failed"):
        await asked.ask()
    assert asked.counted() == {"unavailable": 1}
    assert asked.is_open == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug with a /path"), KeyError("x"), asyncio.CancelledError()]
)
async def test_whatever_its_code_raises_is_one_typed_error_without_details(error: BaseException):
    asked = Guarded(ScriptedEvaluator(raises(error)), attempts=3)
    with pytest.raises(EngineUnavailable) as caught:
        await asked.ask()
    assert caught.value.detail == "evaluator 'mine' failed"
    assert len(asked.evaluator.asked) == 1


async def test_what_may_pass_is_tried_again():
    gone = EngineUnavailable("gone")
    asked = Guarded(ScriptedEvaluator(raises(gone, gone)), attempts=3)
    assert (await asked.ask()).preferred == 1
    assert len(asked.evaluator.asked) == 3
    assert asked.counted() == {"ok": 1}


async def test_after_the_last_attempt_it_is_unavailable_and_only_the_log_knows_why(
    capsys: pytest.CaptureFixture[str],
):
    errors = [EngineUnavailable("10.0.0.7 is gone", retry_after_s=9)] * 9
    asked = Guarded(ScriptedEvaluator(raises(*errors)), attempts=2)
    with pytest.raises(EngineUnavailable, match=r"^evaluator '\w+' failed$") as caught:
        await asked.ask()
    assert caught.value.retry_after_s == 9
    assert "10.0.0.7 is gone" in capsys.readouterr().out
    assert len(asked.evaluator.asked) == 2
    assert asked.counted() == {"unavailable": 1}


async def test_what_is_too_long_for_it_is_not_held_against_it():
    asked = Guarded(ScriptedEvaluator(raises(ContextExceeded("too long"))), breaker_failures=1)
    with pytest.raises(ContextExceeded):
        await asked.ask()
    assert asked.counted() == {"unavailable": 1}
    assert asked.is_open == 0


async def test_one_that_hangs_is_left_after_its_time():
    asked = Guarded(ScriptedEvaluator(seconds=3600), timeout_s=0.02, breaker_failures=1)
    with pytest.raises(DeadlineExceeded, match="gave no opinion in its time"):
        await asked.ask()
    assert (asked.evaluator.running, asked.evaluator.cancelled) == (0, 1)
    assert asked.counted() == {"timeout": 1}
    assert asked.is_open == 1


async def test_an_impatient_caller_is_not_held_against_it():
    asked = Guarded(ScriptedEvaluator(seconds=3600), timeout_s=3600, breaker_failures=1)
    with pytest.raises(DeadlineExceeded):
        await asked.ask(timeout_s=0.02)
    assert (asked.evaluator.running, asked.evaluator.cancelled) == (0, 1)
    assert asked.counted() == {"timeout": 1}
    assert asked.is_open == 0


async def test_a_caller_without_any_time_left_is_late_at_once():
    asked = Guarded(ScriptedEvaluator())
    with pytest.raises(DeadlineExceeded):
        await asked.ask(timeout_s=-1)
    assert asked.evaluator.running == 0


class Stubborn(ScriptedEvaluator):
    """Takes no notice of being cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = asyncio.Event()

    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        self.running += 1
        while not self.enough.is_set():
            try:
                await self.enough.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        self.running -= 1
        raise RuntimeError("at last")


async def test_one_that_cannot_be_stopped_is_left_behind(until: Callable[..., Any]):
    evaluator = Stubborn()
    asked = Guarded(evaluator, timeout_s=0.02)
    with pytest.raises(DeadlineExceeded):
        await asked.ask()
    assert (evaluator.running, evaluator.cancelled) == (1, 1)
    evaluator.enough.set()
    await until(lambda: evaluator.running == 0)


async def test_a_cancelled_caller_stops_the_work_and_counts_nothing(until: Callable[..., Any]):
    asked = Guarded(ScriptedEvaluator(seconds=3600), breaker_failures=1)
    asking = asyncio.create_task(asked.ask())
    await until(lambda: asked.evaluator.running == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (asked.evaluator.running, asked.evaluator.cancelled) == (0, 1)
    assert asked.counted() == {}
    assert asked.is_open == 0


async def test_only_so_many_are_asked_at_once(until: Callable[..., Any]):
    most = 0

    def script(_: Comparison, __: Rubric) -> Opinion:
        nonlocal most
        most = max(most, asked.evaluator.running)
        return Opinion.of(0.5)

    asked = Guarded(ScriptedEvaluator(script, seconds=0.001), concurrency=3)
    await asyncio.gather(*(asked.ask() for _ in range(20)))
    assert most == 3
    assert asked.counted() == {"ok": 20}


async def test_waiting_for_a_place_is_not_held_against_it(until: Callable[..., Any]):
    asked = Guarded(ScriptedEvaluator(seconds=3600), concurrency=1, breaker_failures=1)
    first = asyncio.create_task(asked.ask())
    await until(lambda: asked.evaluator.running == 1)
    with pytest.raises(DeadlineExceeded):
        await asked.ask(timeout_s=0.02)
    assert asked.is_open == 0
    assert len(asked.evaluator.asked) == 1
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_the_breaker_opens_and_closes_again_and_the_metrics_say_so(
    until: Callable[..., Any],
):
    asked = Guarded(
        ScriptedEvaluator(raises(*[EngineUnavailable("gone")] * 2)),
        breaker_failures=2,
        breaker_open_s=0.05,
    )
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="failed"):
            await asked.ask()
    assert (asked.guard.state, asked.is_open) == ("open", 1)
    with pytest.raises(
        EngineUnavailable, match="failed 2 times in a row and is left alone"
    ) as left:
        await asked.ask()
    assert left.value.retry_after_s == 1  # whole seconds; the breaker's are 0.05
    assert len(asked.evaluator.asked) == 2
    await until(lambda: asked.guard.state == "half_open")
    assert asked.is_open == 1
    assert (await asked.ask()).status == "ok"
    assert (asked.guard.state, asked.is_open) == ("closed", 0)
    assert asked.counted() == {"unavailable": 3, "ok": 1}


async def test_closing_gives_back_what_it_holds_and_survives_what_goes_wrong():
    class Broken(ScriptedEvaluator):
        async def close(self) -> None:
            raise OSError("already gone")

    asked = Guarded(ScriptedEvaluator())
    await asked.guard.close()
    assert asked.evaluator.closed
    await Guarded(Broken()).guard.close()
