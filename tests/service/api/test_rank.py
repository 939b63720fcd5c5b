from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import pytest

from models.judgement import RUBRIC_END
from service.engines import Generation, LabelLogprobs
from service.errors import EngineUnavailable

pytestmark = pytest.mark.anyio

RUBRIC = "1. Number (100%): it is right."
WRITTEN = f"<rubric>\n{RUBRIC}\n</rubric>"


def numbers(prompt) -> list[int]:
    """The numbers of the two responses, as they were asked about."""
    text = "".join(part for part in prompt.user if isinstance(part, str))
    return [int(found) for found in re.findall(r"^.*answer number (\d+)", text, re.MULTILINE)][-2:]


def lower_is_better(request) -> Generation:
    """Writes a rubric when asked for one; else prefers the response of the lower number."""
    if RUBRIC_END in request.stop:
        return Generation(WRITTEN, False, 50, 10)
    one, other = numbers(request.prompt)
    verdict, first = (1, 0.97) if one < other else (2, 0.03)
    labels = LabelLogprobs(math.log(first), math.log(1 - first))
    return Generation(f"<eval>…</eval>\n<answer>{verdict}</answer>", False, 100, 20, 40, labels)


def responses(number: int) -> list[str]:
    return [f"answer number {n}" for n in range(number)]


def asked(number: int, **changes: Any) -> dict[str, Any]:
    return {"question": "Which number is lowest?", "responses": responses(number)} | changes


@pytest.fixture
async def gateway(start_gateway):
    return await start_gateway(lower_is_better)


async def test_responses_are_ranked_by_one_rubric_that_the_judge_writes(gateway):
    answer = await gateway.client.post("/rank", json=asked(4, responses=responses(4)[::-1]))
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["reason"], found["stopped"]) == ("ok", None, "all_compared")
    assert found["ranking"] == [3, 2, 1, 0]
    assert [one["index"] for one in found["scores"]] == [0, 1, 2, 3]
    rewards = [one["reward"] for one in found["scores"]]
    assert rewards == sorted(rewards)
    assert sum(rewards) == pytest.approx(0)
    for one in found["scores"]:
        assert one["interval"][0] < one["strength"] < one["interval"][1]
        assert one["win_rate"] == pytest.approx((one["reward"] + 1) / 2)
    assert len(found["comparisons"]) == 6
    assert {one["status"] for one in found["comparisons"]} == {"ok"}
    assert found["cycles"] == []
    assert found["rubric"]["text"] == RUBRIC
    assert found["usage"] == {
        "prompt_tokens": 650,
        "completion_tokens": 130,
        "cached_tokens": 240,
        "calls": 7,
    }
    assert found["spent"] == {"comparisons": 6, "tokens": 780}
    assert re.fullmatch("rank_[0-9a-f]{32}", found["id"])
    assert "engine;dur=" in answer.headers["server-timing"]
    written, *compared = gateway.engine.requests
    assert written.grammar is not None
    assert RUBRIC_END in written.stop
    assert len(compared) == 6
    for request in compared:
        assert RUBRIC in "".join(part for part in request.prompt.user if isinstance(part, str))
    assert gateway.count("proxy_grm_requests_total", route="/rank", outcome="ok") == 1


async def test_a_given_rubric_is_judged_by_and_none_is_written(gateway):
    given = {"text": "1. Sense (100%): it makes some."}
    found = (await gateway.client.post("/rank", json=asked(3, rubric=given))).json()
    assert found["rubric"]["text"] == given["text"]
    assert len(gateway.engine.requests) == 3


async def test_the_pictures_are_decoded_once_for_all_comparisons(gateway, picture):
    body = asked(4, images=[picture()])
    assert (await gateway.client.post("/rank", json=body)).status_code == 200
    pictures = {
        id(part)
        for request in gateway.engine.requests
        for part in request.prompt.user
        if not isinstance(part, str)
    }
    assert len(pictures) == 1


async def test_a_budget_bounds_the_comparisons(gateway):
    found = (await gateway.client.post("/rank", json=asked(20, budget=7))).json()
    assert len(found["comparisons"]) == found["spent"]["comparisons"] == 7
    assert found["stopped"] == "budget"


async def test_many_are_ranked_with_a_part_of_the_pairs(gateway):
    found = (await gateway.client.post("/rank", json=asked(16))).json()
    assert len(found["comparisons"]) <= 48
    assert found["ranking"][0] == 0


async def test_both_orders_are_two_passes_a_comparison(gateway):
    found = (await gateway.client.post("/rank", json=asked(3, order="both"))).json()
    assert found["ranking"] == [0, 1, 2]
    assert len(gateway.engine.requests) == 1 + 2 * 3


async def test_the_same_ranking_again_comes_from_the_cache(gateway):
    first = (await gateway.client.post("/rank", json=asked(3))).json()
    again = (await gateway.client.post("/rank", json=asked(3))).json()
    assert again["ranking"] == first["ranking"]
    assert again["scores"] == first["scores"]
    assert again["usage"]["prompt_tokens"] == 50  # the rubric; judgements are kept
    bypassed = (await gateway.client.post("/rank", json=asked(3, cache="bypass"))).json()
    assert bypassed["usage"] == first["usage"]


async def test_equal_responses_are_compared_with_others_alone(gateway):
    same = ["answer number 1", "answer number 1", "answer number 0"]
    found = (await gateway.client.post("/rank", json=asked(3, responses=same))).json()
    assert found["ranking"] == [2, 0, 1]
    assert len(found["comparisons"]) == 1
    assert found["scores"][0]["reward"] == found["scores"][1]["reward"]


async def test_a_comparison_that_cannot_be_read_is_an_abstention_and_no_win(start_gateway):
    def script(request):
        if RUBRIC_END not in request.stop and sorted(numbers(request.prompt)) == [0, 1]:
            return Generation("I would rather not say.", False, 10, 5)
        return lower_is_better(request)

    gateway = await start_gateway(script)
    found = (await gateway.client.post("/rank", json=asked(3))).json()
    assert found["status"] == "ok"
    status = {frozenset((c["first"], c["second"])): c["status"] for c in found["comparisons"]}
    assert status[frozenset((0, 1))] == "abstain"
    assert list(status.values()).count("ok") == 2
    assert found["scores"][0]["strength"] == pytest.approx(found["scores"][1]["strength"])
    assert gateway.count("proxy_grm_abstentions_total", reason="unreadable") == 1


async def test_a_response_of_which_nothing_could_be_read_has_no_place_and_no_score(start_gateway):
    def script(request):
        if RUBRIC_END not in request.stop and 1 in numbers(request.prompt):
            return Generation("I would rather not say.", False, 10, 5)
        return lower_is_better(request)

    gateway = await start_gateway(script)
    found = (await gateway.client.post("/rank", json=asked(4))).json()
    assert (found["status"], found["ranking"]) == ("ok", [0, 2, 3])
    assert [one["status"] for one in found["scores"]] == ["ok", "abstain", "ok", "ok"]
    assert set(found["scores"][1].values()) == {1, "abstain", None}
    assert sum(one["reward"] or 0 for one in found["scores"]) == pytest.approx(0)


@pytest.mark.parametrize(
    ("truncated", "reason"), [(False, "unreadable"), (True, "truncated")], ids=str
)
async def test_where_no_comparison_could_be_read_nothing_is_ranked(
    start_gateway, truncated, reason
):
    def script(request):
        if RUBRIC_END in request.stop:
            return Generation(WRITTEN, False, 50, 10)
        return Generation("I would rather", truncated, 10, 5)

    gateway = await start_gateway(script)
    found = (await gateway.client.post("/rank", json=asked(3))).json()
    assert (found["status"], found["reason"]) == ("abstain", reason)
    assert (found["ranking"], found["scores"], found["cycles"]) == ([], [], [])
    assert [one["status"] for one in found["comparisons"]] == ["abstain"] * 3
    assert (found["rubric"]["text"], found["stopped"]) == (RUBRIC, "all_compared")
    assert found["spent"]["comparisons"] == 3
    assert gateway.count("proxy_grm_requests_total", route="/rank", outcome="abstain") == 1


async def test_without_a_readable_rubric_nothing_is_ranked(start_gateway):
    gateway = await start_gateway(lambda _: Generation("no rubric", False, 10, 5))
    answer = await gateway.client.post("/rank", json=asked(3))
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["reason"]) == ("abstain", "unreadable")
    assert (found["ranking"], found["scores"], found["comparisons"]) == ([], [], [])
    assert (found["rubric"], found["stopped"]) == (None, None)
    assert found["usage"]["prompt_tokens"] == 10
    assert gateway.count("proxy_grm_requests_total", route="/rank", outcome="abstain") == 1


async def test_an_engine_that_fails_is_an_error_and_no_ranking(start_gateway):
    def script(request):
        if RUBRIC_END in request.stop:
            return Generation(WRITTEN, False, 50, 10)
        raise EngineUnavailable("gone")

    gateway = await start_gateway(script)
    answer = await gateway.client.post("/rank", json=asked(4))
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")


async def test_a_ranking_ends_at_its_deadline_and_stops_its_work(start_gateway, until):
    gateway = await start_gateway(lower_is_better, seconds=3600)
    body = asked(4, timeout_s=1, rubric={"text": RUBRIC})
    answer = await gateway.client.post("/rank", json=body)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    await until(lambda: gateway.engine.running == 0)
    assert gateway.engine.cancelled == len(gateway.engine.requests)


async def test_a_caller_that_goes_away_stops_the_work(start_gateway, until):
    gateway = await start_gateway(lower_is_better, seconds=0.2, listening=True)
    asking = asyncio.create_task(gateway.client.post("/rank", json=asked(6)))
    await until(lambda: gateway.engine.running > 1)
    asking.cancel()
    await until(lambda: gateway.engine.running == 0)
    assert gateway.engine.cancelled > 0


async def test_at_most_32_comparisons_of_a_ranking_are_in_the_engine(start_gateway, until):
    gateway = await start_gateway(lower_is_better, seconds=0.05)
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, gateway.engine.running)
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    answer = await gateway.client.post("/rank", json=asked(64, order="both", budget=64))
    watching.cancel()
    assert answer.status_code == 200
    assert 16 < most <= 64  # two orders each


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"responses": ["one"]}, "responses"),
        ({"responses": [f"r{n}" for n in range(65)]}, "responses"),
        ({"responses": ["one", " "]}, "responses"),
        ({"budget": 0}, "budget"),
        ({"budget": 10**30}, "budget"),
        ({"budget": 2.5}, "budget"),
        ({"confidence": 0.2}, "confidence"),
        ({"order": "adaptive-ish"}, "order"),
        ({"votes": 2}, "votes"),
    ],
)
async def test_a_request_that_cannot_be_is_refused_by_its_field(gateway, changes, field):
    answer = await gateway.client.post("/rank", json=asked(3, **changes))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert any(error["field"].startswith(field) for error in answer.json()["errors"])
    assert gateway.engine.requests == []


async def test_evaluators_and_rubrics_that_are_not_there_are_a_404(gateway):
    for changes in ({"evaluators": ["proxy"]}, {"rubric": {"id": "rub_" + "0" * 24}}):
        answer = await gateway.client.post("/rank", json=asked(3, **changes))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert gateway.engine.requests == []


SCRIPTED = "service.evaluators.scripted:ScriptedEvaluator"
RANKED = [f"answer number {n}{'!' * 9 * n}" for n in range(4)]
"""The lowest number is the best; the longest is, says `scripted`."""


async def test_evaluators_say_what_they_make_of_each_comparison_by_the_one_rubric(start_gateway):
    gateway = await start_gateway(lower_is_better, evaluators={"long": {"kind": SCRIPTED}})
    body = asked(4, responses=RANKED, evaluators=["self", "long"])
    found = (await gateway.client.post("/rank", json=body)).json()
    assert found["ranking"] == [0, 1, 2, 3]
    for one in found["comparisons"]:
        own, long = one["evaluators"]
        assert (own["name"], own["status"]) == ("self", "ok")
        assert own["preferred"] == (1 if one["first"] < one["second"] else 2)
        assert own["probability"] == pytest.approx(one["probability"])
        assert (long["name"], long["preferred"]) == ("long", 3 - own["preferred"])
        assert one["agreement"] == 0.5
    own, long = found["evaluators"]
    assert (own["name"], own["ok"], own["agreement"], own["usage"]["calls"]) == ("self", 6, 1.0, 6)
    assert (long["name"], long["ok"], long["agreement"]) == ("long", 6, 0.0)
    assert found["agreement"] == 0.5
    assert found["usage"]["calls"] == 7
    assert found["rubric"]["record"] == {"opinions": 12, "agreed": 6}
    evaluator = gateway.parts.roster.named("long")._evaluator
    assert {rubric.text for _, rubric, _ in evaluator.asked} == {RUBRIC}


async def test_the_panel_has_a_ranking_of_its_own(start_gateway):
    heavy = {"kind": SCRIPTED, "weight": 9}
    gateway = await start_gateway(lower_is_better, evaluators={"long": heavy})
    found = (
        await gateway.client.post("/rank", json=asked(4, responses=RANKED, evaluators=["long"]))
    ).json()
    assert found["ranking"] == [0, 1, 2, 3]
    assert found["panel"]["ranking"] == [3, 2, 1, 0]
    assert sum(one["reward"] for one in found["panel"]["scores"]) == pytest.approx(0)
    win_rates = [one["win_rate"] for one in found["panel"]["scores"]]
    best = (0.97 + 9 * 0.1) / 10
    assert win_rates[0] == pytest.approx(best)
    assert found["panel"]["cycles"] == []


async def test_equal_responses_share_what_evaluators_say_of_one(start_gateway):
    gateway = await start_gateway(lower_is_better, evaluators={"long": {"kind": SCRIPTED}})
    same = [RANKED[1], RANKED[1], RANKED[0]]
    body = asked(3, responses=same, evaluators=["long"])
    found = (await gateway.client.post("/rank", json=body)).json()
    assert len(found["comparisons"]) == found["evaluators"][0]["ok"] == 1
    scores = found["panel"]["scores"]
    assert scores[0]["strength"] == scores[1]["strength"]


async def test_without_evaluators_nothing_is_said(gateway):
    found = (await gateway.client.post("/rank", json=asked(3))).json()
    assert (found["evaluators"], found["agreement"], found["panel"]) == ([], None, None)
    assert {tuple(one["evaluators"]) for one in found["comparisons"]} == {()}


async def test_a_failure_of_an_evaluator_is_no_opinion_and_the_ranking_arrives(start_gateway):
    slow = {"kind": SCRIPTED, "timeout_s": 0.02, "options": {"seconds": 3600}}
    gone = {"kind": "http", "attempts": 1, "options": {"url": "http://127.0.0.1:9/x"}}
    slow |= {"breaker_failures": 100}
    gateway = await start_gateway(lower_is_better, evaluators={"slow": slow, "gone": gone})
    body = asked(4, evaluators=["slow", "gone"])
    found = (await gateway.client.post("/rank", json=body)).json()
    assert (found["status"], found["ranking"]) == ("ok", [0, 1, 2, 3])
    said = {one["name"]: one for one in found["evaluators"]}
    assert (said["slow"]["timeout"], said["gone"]["unavailable"]) == (6, 6)
    assert {one["agreement"] for one in [*said.values(), *found["comparisons"]]} == {None}
    assert found["agreement"] is None
    assert found["panel"] is None
    assert found["rubric"]["record"] is None


async def test_an_evaluator_that_hangs_leaves_the_ranking_inside_its_time(start_gateway):
    slow = {"kind": SCRIPTED, "timeout_s": 3600, "options": {"seconds": 3600}}
    gateway = await start_gateway(lower_is_better, evaluators={"slow": slow})
    body = asked(12, evaluators=["slow"], budget=66, confidence=1, timeout_s=15)
    answer = await gateway.client.post("/rank", json=body)
    assert answer.status_code == 200
    assert answer.json()["evaluators"][0]["timeout"] == 66


async def test_an_evaluator_may_speak_where_the_judge_cannot_be_read(start_gateway):
    def script(request):
        if RUBRIC_END in request.stop:
            return Generation(WRITTEN, False, 50, 10)
        return Generation("I would rather not say.", False, 10, 5)

    gateway = await start_gateway(script, evaluators={"long": {"kind": SCRIPTED}})
    body = asked(4, responses=RANKED, evaluators=["long"])
    found = (await gateway.client.post("/rank", json=body)).json()
    assert {one["status"] for one in found["comparisons"]} == {"abstain"}
    assert (found["status"], found["reason"], found["ranking"]) == ("abstain", "unreadable", [])
    assert found["agreement"] is None
    assert found["panel"]["ranking"] == [3, 2, 1, 0]


async def test_a_response_that_is_too_long_is_named(start_gateway):
    gateway = await start_gateway(lower_is_better, limits={"text_characters": 100})
    answer = await gateway.client.post("/rank", json=asked(3, responses=["a", "b", "c" * 101]))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert "responses[2]" in answer.json()["detail"]
