from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio
from PIL import Image
from prometheus_client import CollectorRegistry

from models.comparison import Comparison, JudgeImage
from models.rubric import Rubric
from service.errors import StoreUnavailable
from service.judging import JudgingOptions
from service.metrics import Metrics
from service.settings import CacheSettings
from service.store import RubricRecord, Store, comparison_key, flight_key, judgement_key

pytestmark = pytest.mark.anyio

RUBRIC = Rubric("1. Accuracy (100%): it is true.", "Truth matters.")
COMPARISON = Comparison("How many?", ("One.", "Two."))
OPTIONS = JudgingOptions()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
async def store(redis_url: str, metrics: Metrics) -> AsyncIterator[Store]:
    settings = CacheSettings(judgement_ttl_s=100, rubric_ttl_s=200, run_ttl_s=300)
    opened = Store(redis_url, settings, metrics, quiet_s=0)
    yield opened
    await opened.close()


def cached(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("proxy_grm_cache_total", {"outcome": outcome})


async def test_a_judgement_comes_back_as_it_was_kept(store: Store, metrics: Metrics):
    kept = {"preferred": 1, "probability": 0.75, "text": "zwei Kreise – ⚪⚪ \ud800"}
    assert await store.judgement("f:abc") is None
    await store.keep_judgement("f:abc", kept)
    assert await store.judgement("f:abc") == kept
    assert await store.judgement("f:abd") is None
    assert (cached(metrics, "hit"), cached(metrics, "miss")) == (1, 2)


async def test_a_rubric_comes_back_by_its_id_with_its_justification(store: Store):
    assert await store.rubric(RUBRIC.id) is None
    await store.keep_rubric(RUBRIC)
    assert await store.rubric(RUBRIC.id) == RUBRIC


async def test_counts_are_added_up_under_each_key(store: Store):
    assert await store.counts("f") is None
    await store.add_counts(["f", "f:run"], {"judgements": 1, "shift": 0.25})
    await store.add_counts(["f"], {"judgements": 2, "probes": 1})
    assert await store.counts("f") == {"judgements": 3, "shift": 0.25, "probes": 1}
    assert await store.counts("f:run") == {"judgements": 1, "shift": 0.25}


async def test_counts_are_added_whole_by_many_at_once(store: Store):
    await asyncio.gather(*(store.add_counts(["f"], {"judgements": 1}) for _ in range(50)))
    assert await store.counts("f") == {"judgements": 50}


async def test_counts_that_are_something_else_are_unknown(store: Store, redis_url: str):
    client = redis.asyncio.Redis.from_url(redis_url)
    await client.set("proxy_grm:counts:f", "text")
    await client.hset("proxy_grm:counts:g", mapping={"judgements": "many"})
    await client.aclose()
    assert await store.counts("f") is None
    assert await store.counts("g") is None
    await store.add_counts(["f"], {"judgements": 1})


async def test_everything_is_forgotten_after_the_time_in_the_settings(store: Store, redis_url: str):
    await store.keep_judgement("f:abc", {})
    await store.keep_rubric(RUBRIC)
    await store.add_counts(["f:r"], {"judgements": 1})
    client = redis.asyncio.Redis.from_url(redis_url)
    try:
        assert 295 <= await client.ttl("proxy_grm:counts:f:r") <= 300
        assert 95 <= await client.ttl("proxy_grm:judgement:default:f:abc") <= 100
        assert 195 <= await client.ttl(f"proxy_grm:rubric:default:{RUBRIC.id}") <= 200
        assert await client.dbsize() == 3
    finally:
        await client.aclose()


@pytest.mark.parametrize("kept", ["no json", '"a text"', "[1]", "{}", '{"text": 5}', "null"])
async def test_a_kept_rubric_that_cannot_be_read_is_unknown(
    kept: str, store: Store, redis_url: str
):
    client = redis.asyncio.Redis.from_url(redis_url)
    await client.set(f"proxy_grm:rubric:default:{RUBRIC.id}", kept)
    await client.aclose()
    assert await store.rubric(RUBRIC.id) is None


async def test_without_redis_everything_is_unknown_and_nothing_fails(
    tmp_path: Path, metrics: Metrics
):
    store = Store(f"unix://{tmp_path}/no.socket", CacheSettings(), metrics)
    await store.keep_judgement("f:abc", {})
    await store.keep_rubric(RUBRIC)
    assert await store.judgement("f:abc") is None
    with pytest.raises(StoreUnavailable):  # "unknown" would be final
        await store.rubric(RUBRIC.id)
    assert cached(metrics, "unavailable") == 4
    assert cached(metrics, "hit") == 0
    await store.close()


async def test_a_redis_that_answers_nothing_is_waited_for_shortly(
    lone_redis: tuple[str, int], metrics: Metrics
):
    url, process = lone_redis
    store = Store(url, CacheSettings(), metrics, quiet_s=0)
    await store.keep_judgement("f:abc", {"preferred": 1})
    os.kill(process, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert await store.judgement("f:abc") is None
        assert time.monotonic() - began < 10  # it would never answer
        assert cached(metrics, "unavailable") == 1
    finally:
        os.kill(process, signal.SIGCONT)
    assert await store.judgement("f:abc") == {"preferred": 1}
    await store.close()


async def test_a_redis_that_three_have_waited_for_in_vain_is_not_asked_for_a_while(
    lone_redis: tuple[str, int], metrics: Metrics
):
    url, process = lone_redis
    store = Store(url, CacheSettings(), metrics, quiet_s=3600)
    await store.keep_judgement("f:abc", {"preferred": 1})
    os.kill(process, signal.SIGSTOP)
    try:
        for _ in range(3):
            assert await store.judgement("f:abc") is None
    finally:
        os.kill(process, signal.SIGCONT)
    assert await store.judgement("f:abc") is None
    assert await store.claim("f:abc", "token", 5) is None
    assert await store.count("quota:a", 1, 5) is None
    assert (await store.record(RUBRIC.id)).opinions == 0
    await store.keep_judgement("f:abc", {"preferred": 2})
    assert cached(metrics, "unavailable") == 8
    await store.close()


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
async def test_a_caller_that_gives_up_stops_wherever_the_call_is(
    connected: bool, redis_url: str, metrics: Metrics
):
    """Python 3.11's `wait_for`, which the Redis client uses, can lose a cancellation."""
    lost: list[int] = []
    for steps in range(1, 12):
        store = Store(redis_url, CacheSettings(), metrics)
        if connected:
            await store.judgement("f:abc")
        call = asyncio.create_task(store.judgement("f:abc"))
        for _ in range(steps):
            await asyncio.sleep(0)
        if not call.done():
            call.cancel()
            [ended] = await asyncio.gather(call, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                lost.append(steps)
        await store.close()
    assert lost == []


async def test_a_caller_that_gives_up_is_not_told_of_a_miss_when_redis_then_fails(
    lone_redis: tuple[str, int], metrics: Metrics
):
    url, process = lone_redis
    store = Store(url, CacheSettings(), metrics, quiet_s=0)
    lost: list[tuple[int, object]] = []
    for steps in range(1, 12):
        await store.judgement("f:abc")
        os.kill(process, signal.SIGSTOP)
        calls = [
            asyncio.create_task(call)
            for call in (store.judgement("f:abc"), store.claim("f:abc", "token", 5))
        ]
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
            for call in calls:
                assert call.cancel()
            for ended in await asyncio.gather(*calls, return_exceptions=True):
                if not isinstance(ended, asyncio.CancelledError):
                    lost.append((steps, ended))
        finally:
            os.kill(process, signal.SIGCONT)
    assert lost == []
    await store.close()


def test_the_key_begins_with_the_releases_fingerprint():
    key = judgement_key("f1", COMPARISON, OPTIONS, None)
    assert key is not None
    assert key.startswith("f1:")
    assert judgement_key("f2", COMPARISON, OPTIONS, None) != key


PICTURES = tuple(JudgeImage(Image.new("RGB", (28, 28)), name) for name in ("a@1", "b@1"))


@pytest.mark.parametrize(
    ("comparison", "options", "rubric"),
    [
        (replace(COMPARISON, question="How many cats?"), OPTIONS, None),
        (COMPARISON.swap(), OPTIONS, None),
        (replace(COMPARISON, responses=("One.Two.", "")), OPTIONS, None),
        (replace(COMPARISON, images=PICTURES[:1]), OPTIONS, None),
        (COMPARISON, replace(OPTIONS, depth="verdict"), None),
        (COMPARISON, replace(OPTIONS, order="both"), None),
        (COMPARISON, replace(OPTIONS, require_consistent=True), None),
        (COMPARISON, OPTIONS, RUBRIC),
    ],
)
def test_whatever_can_change_a_judgement_changes_the_key(
    comparison: Comparison, options: JudgingOptions, rubric: Rubric | None
):
    assert judgement_key("f", comparison, options, rubric) != judgement_key(
        "f", COMPARISON, OPTIONS, None
    )


def test_the_order_of_pictures_changes_the_key():
    there, back = (
        judgement_key("f", replace(COMPARISON, images=images), OPTIONS, None)
        for images in (PICTURES, PICTURES[::-1])
    )
    assert there != back


def test_what_cannot_change_a_judgement_leaves_the_key():
    key = judgement_key("f", COMPARISON, OPTIONS, RUBRIC)
    for options in (replace(OPTIONS, seed=5), replace(OPTIONS, priority="batch")):
        assert judgement_key("f", COMPARISON, options, RUBRIC) == key
    assert judgement_key("f", COMPARISON, OPTIONS, replace(RUBRIC, justification=None)) == key


def test_votes_are_made_for_those_alone_who_want_the_same_ones():
    escalating = replace(OPTIONS, order="escalate")
    key = judgement_key("f", COMPARISON, escalating, RUBRIC)
    assert key is not None
    assert judgement_key("f", COMPARISON, replace(escalating, seed=5), RUBRIC) == key
    assert flight_key(key, replace(escalating, seed=5)) != flight_key(key, escalating)
    assert flight_key(key, replace(OPTIONS, seed=5)) == flight_key(key, OPTIONS)


def test_a_sampled_judgement_has_no_key():
    assert judgement_key("f", COMPARISON, replace(OPTIONS, temperature=0.1), None) is None


async def test_two_stores_share_one_redis(redis_url: str, metrics: Metrics):
    first, second = (Store(redis_url, CacheSettings(), metrics) for _ in range(2))
    await first.keep_judgement("f:abc", json.loads('{"preferred": 2}'))
    assert await second.judgement("f:abc") == {"preferred": 2}
    await first.close()
    await second.close()


async def test_a_rubrics_record_adds_up_and_goes_with_the_rubric(store: Store, redis_url: str):
    assert await store.record("rub_1") == RubricRecord(0, 0)
    said = {"a": True, "b": False, "c": True}
    assert await store.record("rub_1", "one", said) == RubricRecord(3, 2)
    assert await store.record("rub_1", "other", {"a": False}) == RubricRecord(4, 2)
    assert await store.record("rub_2") == RubricRecord(0, 0)
    with redis.Redis.from_url(redis_url) as client:
        assert 0 < client.ttl("proxy_grm:record:default:rub_1") <= 200
        assert 0 < client.ttl("proxy_grm:heard:default:rub_1:one") <= 100


async def test_an_opinion_counts_once_for_a_comparison_and_a_rubric(store: Store):
    await store.record("rub_1", "one", {"a": True, "b": False})
    assert await store.record("rub_1", "one", {"a": True, "b": True}) == RubricRecord(2, 1)
    assert await store.record("rub_1", "one", {"b": True, "c": True}) == RubricRecord(3, 2)
    assert await store.record("rub_1", "two", {"a": True}) == RubricRecord(4, 3)
    assert await store.record("rub_2", "one", {"a": True}) == RubricRecord(1, 1)
    many = [store.record("rub_3", "one", {"a": True}) for _ in range(20)]
    await asyncio.gather(*many)
    assert await store.record("rub_3") == RubricRecord(1, 1)


def test_every_part_of_a_comparison_makes_another_one():
    picture = JudgeImage(Image.new("RGB", (28, 28)), "teal")
    all_of_them = [
        COMPARISON,
        COMPARISON.swap(),
        replace(COMPARISON, question="How few?"),
        replace(COMPARISON, images=(picture,)),
    ]
    assert len({comparison_key(one) for one in all_of_them}) == 4
    assert comparison_key(replace(COMPARISON)) == comparison_key(COMPARISON)


async def test_without_redis_a_record_is_empty_and_no_error():
    metrics = Metrics(CollectorRegistry())
    nowhere = Store("unix:///no.socket", CacheSettings(), metrics)
    assert await nowhere.record("rub_1", "one", {"a": True}) == RubricRecord(0, 0)
    await nowhere.close()
