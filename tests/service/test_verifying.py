from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from models.comparison import Comparison, Position
from models.rubric import Rubric
from service.calls import Call, Calls, GivenRubric
from service.engines import Priority
from service.engines.scripted import ScriptedEngine
from service.errors import (
    DeadlineExceeded,
    Draining,
    ImageRejected,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
)
from service.evaluators import (
    Evaluator,
    EvaluatorConfig,
    GuardedEvaluator,
    Opinion,
    Roster,
    Surroundings,
)
from service.images import GivenImage, Images
from service.judging import JudgingOptions
from service.settings import EvaluatorSettings
from service.store import Store
from service.verifying import Verifying

pytestmark = pytest.mark.anyio

CALL = Call("How many?", ("One.", "Two."), rubric=GivenRubric(text="1. Count (100%)"))


class Fixed(Evaluator):
    """Always has the same opinion."""

    def __init__(self, preferred: Position | None) -> None:
        self.preferred: Position | None = preferred
        self.asked: list[tuple[Comparison, Rubric, Priority]] = []

    @classmethod
    def build(cls, config: EvaluatorConfig, around: Surroundings) -> Fixed:
        return cls(None)

    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        self.asked.append((comparison, rubric, priority))
        status, reason = ("ok", None) if self.preferred else ("abstain", "unreadable")
        return Opinion(status, reason, self.preferred)


@pytest.fixture
async def gateway(start_gateway, proxy_release: str):
    return await start_gateway(release=proxy_release)


@pytest.fixture
async def verifying(gateway):
    return gateway.parts.verifying


@pytest.fixture
async def asking(gateway, redis_url: str, shared_images: Images):
    """Makes verifying that asks an evaluator of the test's own."""
    parts, metrics = gateway.parts, gateway.metrics
    store = Store(redis_url, parts.settings.cache, metrics)
    limits, config = parts.settings.limits, parts.release.config
    calls = Calls(config, shared_images, store, parts.admission, metrics, limits)
    settings = EvaluatorSettings(kind="tests:Fixed")

    def made(**evaluators: Fixed) -> Verifying:
        guarded = {n: GuardedEvaluator(n, e, settings, metrics) for n, e in evaluators.items()}
        return Verifying(Roster(guarded), calls, metrics, parts.settings.judging)

    yield made
    await store.close()


@pytest.mark.parametrize(
    ("preferred", "label", "reward"),
    [
        (1, 1, 1.0),
        (2, 2, 1.0),
        (1, 2, -1.0),
        (2, 1, -1.0),
        (1, None, None),
        (None, 1, None),
        (None, 2, None),
        (None, None, None),
    ],
)
async def test_the_reward_is_agreement_with_the_label_and_nothing_else(
    preferred, label, reward, asking
):
    verified = await asking(proxy=Fixed(preferred)).verify(CALL, label)
    assert verified.reward == reward
    assert verified.opinion.preferred == preferred


async def test_an_evaluator_gets_the_comparison_as_given_and_the_rubric_alone(asking, picture):
    fixed = Fixed(1)
    text = "<rubric>\n1. Count (100%)\n<justify>One is right.</justify>\n</rubric>"
    call = replace(
        CALL,
        images=(GivenImage(picture()["data"]),),
        rubric=GivenRubric(text=text),
        options=JudgingOptions(priority="batch"),
    )
    await asking(mine=fixed).verify(call, None, "mine")
    [(comparison, rubric, priority)] = fixed.asked
    assert (comparison.question, comparison.responses) == (CALL.question, CALL.responses)
    assert [image.pixels.size for image in comparison.images] == [(64, 48)]
    assert (rubric, priority) == (Rubric("1. Count (100%)"), "batch")


@pytest.mark.parametrize("name", ["mine", "Proxy", "proxy ", ""])
async def test_an_unknown_evaluator_is_not_found_before_anything_is_done(name: str, gateway):
    gateway.parts.admission.draining = True
    with pytest.raises(NotFound, match="no evaluator of this name"):
        await gateway.parts.verifying.verify(CALL, None, name)


async def test_a_release_without_a_proxy_says_so(start_gateway, bare_release: str):
    gateway = await start_gateway(release=bare_release)
    with pytest.raises(NotFound, match="this release has no proxy"):
        await gateway.parts.verifying.verify(CALL)
    assert gateway.proxy.starts == 0


async def test_a_call_without_a_rubric_is_refused(verifying):
    with pytest.raises(InvalidRequest, match="nothing to judge by"):
        await verifying.verify(replace(CALL, rubric=None))


async def test_what_costs_nothing_is_checked_before_it_waits(start_gateway, proxy_release: str):
    gateway = await start_gateway(release=proxy_release, limits={"text_characters": 20})
    gateway.parts.admission.draining = True
    verify = gateway.parts.verifying.verify
    with pytest.raises(PayloadTooLarge, match=r"^rubric\.text has 21 characters"):
        await verify(replace(CALL, rubric=GivenRubric(text="x" * 21)))
    with pytest.raises(InvalidRequest, match=r"^5 images; this release takes at most 4$"):
        await verify(replace(CALL, images=(GivenImage("!"),) * 5))
    with pytest.raises(Draining):
        await verify(CALL)


async def test_a_bad_picture_never_starts_the_proxy(gateway, verifying):
    with pytest.raises(ImageRejected):
        await verifying.verify(replace(CALL, images=(GivenImage("!"),)))
    assert gateway.proxy.starts == 0
    assert gateway.count("proxy_grm_inflight") == 0


async def test_a_rubric_that_is_kept_can_be_named_by_its_id(gateway, redis_url, verifying):
    first = await verifying.verify(CALL)
    kept = Rubric("1. Count (100%)")
    store = Store(redis_url, gateway.parts.settings.cache, gateway.metrics)
    await store.keep_rubric(kept)
    await store.close()
    by_id = replace(CALL, rubric=GivenRubric(id=kept.id))
    assert (await verifying.verify(by_id)).opinion.preferred == first.opinion.preferred
    with pytest.raises(NotFound, match="send its text"):
        await verifying.verify(replace(CALL, rubric=GivenRubric(id="rub_" + "0" * 24)))


async def test_the_wait_for_the_proxys_start_is_part_of_the_callers_time(
    start_gateway, proxy_release: str
):
    proxy = ScriptedEngine(start_s=0.3)
    gateway = await start_gateway(release=proxy_release, proxy=proxy)
    verify = gateway.parts.verifying.verify
    with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s$"):
        await verify(replace(CALL, timeout_s=0.05))
    verified = await verify(CALL)
    assert proxy.starts == 1
    assert verified.opinion.status == "ok"
    assert verified.timing.engine_s > 0
    assert gateway.count("proxy_grm_inflight") == 0


async def test_cancelled_calls_leave_nothing_behind(start_gateway, proxy_release: str, until):
    proxy = ScriptedEngine(seconds=60)
    gateway = await start_gateway(release=proxy_release, proxy=proxy)
    calls = [asyncio.create_task(gateway.parts.verifying.verify(CALL)) for _ in range(3)]
    await until(lambda: proxy.running == 3)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (proxy.running, proxy.cancelled) == (0, 3)
    assert gateway.count("proxy_grm_inflight") == 0
    assert gateway.count("proxy_grm_stage_seconds_count", stage="total") == 0


async def test_an_abstention_is_counted_by_its_reason(gateway, asking):
    await asking(proxy=Fixed(None)).verify(CALL, 1)
    await asking(proxy=Fixed(1)).verify(CALL, 1)
    assert gateway.count("proxy_grm_abstentions_total", reason="unreadable") == 1
