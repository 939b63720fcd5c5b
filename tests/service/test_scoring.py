from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
import redis

from models.rubric import Rubric
from service.calls import Call, GivenRubric
from service.errors import (
    DeadlineExceeded,
    ImageRejected,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
)
from service.images import GivenImage
from service.judging import JudgingOptions, Usage

pytestmark = pytest.mark.anyio

CALL = Call("How many?", ("One.", "Two."))


@pytest.fixture
async def scoring(gateway):
    return gateway.parts.scoring


async def test_a_call_is_judged_once_and_remembered(gateway, scoring):
    first, second = await scoring.score(CALL), await scoring.score(CALL)
    assert (first.cached, second.cached) == (False, True)
    assert first.judgement.usage.prompt_tokens > 0
    assert second.judgement == replace(first.judgement, usage=Usage())
    assert len(gateway.engine.requests) == 1


async def test_a_call_that_bypasses_the_cache_does_not_look_there(gateway, scoring):
    await scoring.score(CALL)
    assert (await scoring.score(replace(CALL, use_cache=False))).cached is False
    assert gateway.count("proxy_grm_cache_total", outcome="hit") == 0


async def test_the_stages_of_a_call_add_up(scoring):
    timing = (await scoring.score(CALL)).timing
    stages = (timing.queue_s, timing.image_s, timing.engine_s)
    assert all(stage >= 0 for stage in stages)
    assert sum(stages) <= timing.total_s


@pytest.mark.parametrize(
    "kept",
    [
        "no json",
        "[]",
        '"text"',
        '{"preferred": 1, "probability": 0.9}',
        '{"passes": [], "rubric": null, "verdict": 3}',
    ],
)
async def test_what_another_version_kept_is_judged_again(kept: str, scoring, redis_url: str):
    await scoring.score(CALL)
    with redis.Redis.from_url(redis_url) as client:
        [name] = client.keys("proxy_grm:judgement:*")
        assert json.loads(client.get(name))["preferred"] in (1, 2)
        client.set(name, kept)
    assert (await scoring.score(CALL)).cached is False
    assert (await scoring.score(CALL)).cached is True


async def test_no_picture_and_no_text_of_a_picture_is_kept(scoring, redis_url: str, picture):
    await scoring.score(replace(CALL, images=(GivenImage(picture()["data"]),)))
    with redis.Redis.from_url(redis_url) as client:
        kept = b"".join(client.get(name) for name in client.scan_iter())
    assert picture()["data"].encode() not in kept
    assert b"PNG" not in kept


async def test_a_given_rubric_is_stripped_and_kept_under_its_id(scoring):
    scored = await scoring.score(replace(CALL, rubric=GivenRubric(text="\n1. Truth (100%)\n ")))
    rubric = Rubric("1. Truth (100%)")
    assert scored.judgement.rubric == rubric
    again = await scoring.score(replace(CALL, rubric=GivenRubric(id=rubric.id)))
    assert again.cached is True


async def test_a_rubric_that_is_not_kept_is_not_found(gateway, scoring):
    with pytest.raises(NotFound, match="send its text"):
        await scoring.score(replace(CALL, rubric=GivenRubric(id="rub_" + "0" * 24)))
    assert gateway.count("proxy_grm_inflight") == 0


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (replace(CALL, question="x" * 11), "question"),
        (replace(CALL, responses=("x" * 11, "b")), r"responses\[0\]"),
        (replace(CALL, responses=("a", "x" * 11)), r"responses\[1\]"),
        (replace(CALL, rubric=GivenRubric(text="x" * 11)), r"rubric\.text"),
    ],
)
async def test_too_long_a_text_is_refused_before_it_waits(call: Call, name: str, start_gateway):
    gateway = await start_gateway(limits={"text_characters": 10})
    gateway.parts.admission.draining = True  # a call that waited would be told so
    with pytest.raises(PayloadTooLarge, match=f"^{name} has 11 characters; at most 10 are read$"):
        await gateway.parts.scoring.score(call)


async def test_too_many_pictures_are_refused_before_one_is_decoded(gateway, scoring):
    gateway.parts.admission.draining = True
    with pytest.raises(InvalidRequest, match=r"^5 images; this release takes at most 4$"):
        await scoring.score(replace(CALL, images=(GivenImage("!"),) * 5))


@pytest.mark.parametrize("method", ["score", "write_rubric"])
async def test_a_bad_picture_among_good_ones_rejects_the_call(
    method: str, gateway, scoring, picture
):
    sent = (picture()["data"], "!", picture(color="red")["data"], "?")
    call = replace(CALL, images=tuple(GivenImage(data) for data in sent))
    with pytest.raises(ImageRejected):
        await getattr(scoring, method)(call)
    assert gateway.count("proxy_grm_inflight") == 0
    assert gateway.engine.requests == []


async def test_the_deadline_covers_pictures(scoring, picture):
    large = picture((4900, 5000))["data"]
    with pytest.raises(DeadlineExceeded, match=r"^no judgement within 0\.02 s$"):
        await scoring.score(replace(CALL, images=(GivenImage(large),), timeout_s=0.02))


async def test_a_rubric_alone_is_kept_under_its_id(scoring):
    written = (await scoring.write_rubric(CALL)).written
    assert written.rubric is not None
    scored = await scoring.score(replace(CALL, rubric=GivenRubric(id=written.rubric.id)))
    assert scored.judgement.rubric == written.rubric


async def test_cancelled_calls_are_neither_kept_nor_counted(start_gateway, until):
    gateway = await start_gateway(seconds=60)
    scoring = gateway.parts.scoring
    asked = [replace(CALL, question=f"How many? {n}") for n in range(3)]
    calls = [asyncio.create_task(scoring.score(call)) for call in asked]
    await until(lambda: gateway.engine.running == 3)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (gateway.engine.running, gateway.engine.cancelled) == (0, 3)
    assert gateway.count("proxy_grm_stage_seconds_count", stage="total") == 0
    assert gateway.count("proxy_grm_inflight") == 0


async def test_a_sampled_call_is_not_looked_up(gateway, scoring):
    await scoring.score(replace(CALL, options=JudgingOptions(temperature=1.0)))
    assert gateway.count("proxy_grm_cache_total", outcome="miss") == 0
