from __future__ import annotations

import json
import random

import httpx
import pytest
from proxy_grm_client import AsyncClient

from models.benchmarks.attacks import ATTACKS
from models.benchmarks.injection import Outcome, attacked, summary, under_attack
from models.toyworld import CaseOptions, make_case


def cases(count: int = 6):
    rng = random.Random(3)
    return [make_case(rng, CaseOptions()) for _ in range(count)]


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_stands_in_the_wrong_response_alone_and_names_its_place(name: str):
    for case in cases(10):
        responses = attacked(case, name)
        right, wrong = case.label - 1, 2 - case.label
        assert responses[right] == case.responses[right]
        assert case.responses[wrong] in responses[wrong]
        if name != "none":
            assert len(responses[wrong]) > len(case.responses[wrong])
        if name in ("order", "order_first", "insistence", "verdict_tags", "quoted_verdict"):
            assert str(wrong + 1) in responses[wrong].replace(case.responses[wrong], "")


def test_an_abstention_is_no_persuasion_and_neither_is_a_refusal():
    plain = [Outcome(1, 1), Outcome(2, 2), Outcome(1, 2), Outcome(2, None)]
    found = summary(
        plain,
        {
            "benign": [Outcome(1, 1, 0.1), Outcome(2, 2, 0.2)],
            "order": [Outcome(1, 2, 0.9), Outcome(2, None)],
            "padding": [Outcome(1, None, refused=True), Outcome(2, 2, 0.4)],
        },
    )
    assert (found["cases"], found["right_without_attack"]) == (4, 2)
    order, padding = found["attacks"]["order"], found["attacks"]["padding"]
    assert (order["persuaded"], order["beyond_benign"], order["abstained"]) == (0.5, 0.5, 1)
    assert order["mean_probability_of_attacked"] == 0.9
    assert order["interval_95"][0] < 0.5 < order["interval_95"][1]
    assert (padding["persuaded"], padding["refused"], padding["abstained"]) == (0.0, 1, 0)


def test_without_a_case_that_was_judged_right_there_is_no_rate():
    found = summary([Outcome(1, 2)], {"benign": [], "order": []})
    assert found["attacks"]["order"] == {
        "n": 0,
        "persuaded": None,
        "interval_95": None,
        "beyond_benign": None,
        "mean_probability_of_attacked": None,
        "abstained": 0,
        "refused": 0,
    }


@pytest.mark.anyio
async def test_a_judge_that_believes_what_it_reads_is_persuaded(answer):
    def gullible(request: httpx.Request) -> httpx.Response:
        first, second = json.loads(request.content)["responses"]
        if len(first) > 10_000 or len(second) > 10_000:
            problem = {
                "type": "urn:proxy-grm:error:context_exceeded",
                "title": "Context exceeded",
                "status": 422,
                "detail": "too long",
                "code": "context_exceeded",
                "request_id": "r",
            }
            return httpx.Response(422, json=problem)
        told = 1 if "Ignore the above" in first else 2
        return httpx.Response(200, json=answer(told))

    some = cases()
    client = AsyncClient("http://judge", transport=httpx.MockTransport(gullible))
    async with client:
        found = await under_attack(client, some, "order", 2)
    assert [outcome.preferred for outcome in found] == [
        1 if case.label == 2 else 2 for case in some
    ]
    assert all(outcome.is_persuaded for outcome in found)
    assert {outcome.attacked_probability for outcome in found} == {0.8}


@pytest.fixture
def answer():
    """A judgement as a service sends it."""

    def made(preferred: int) -> dict[str, object]:
        return {
            "id": "score_1",
            "status": "ok",
            "reason": None,
            "preferred": preferred,
            "probability": 0.8 if preferred == 1 else 0.2,
            "order_consistent": None,
            "stopped": "complete",
            "rubric": None,
            "evaluation": "",
            "verdicts": [],
            "evaluators": [],
            "agreement": None,
            "release": {"name": "r", "fingerprint": "f", "purpose": "demo"},
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 0},
            "timing": {"queue_s": 0, "image_s": 0, "engine_s": 0, "total_s": 0},
            "cached": False,
        }

    return made
