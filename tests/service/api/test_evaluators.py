from __future__ import annotations

import asyncio
import math

import pytest

from service.engines import Generation, GenerationRequest, LabelLogprobs
from service.engines.scripted import ScriptedEngine
from service.evaluators import EvaluatorInvalid

pytestmark = pytest.mark.anyio

SCRIPTED = "service.evaluators.scripted:ScriptedEvaluator"
WRITTEN = "<rubric>\n1. Length (100%)\n<justify>The second wins.</justify>\n</rubric>\n"
LONGER_SECOND = ["Two.", "There are three."]


def prefers(first: float):
    """A judge, or a proxy, that is always so sure of the first response."""

    def script(request: GenerationRequest) -> Generation:
        texts = [part for part in request.prompt.user if isinstance(part, str)]
        given = "<rubric>" in request.prefill or any("<rubric>" in text for text in texts)
        text = f"<eval>\nSo.\n</eval>\n<answer>{1 if first >= 0.5 else 2}</answer>"
        if request.max_tokens == 1:
            given, text = True, "1" if first >= 0.5 else "2"
        if request.stop == ("</rubric>",):
            return Generation(WRITTEN.strip(), False, 100, 10)
        labels = LabelLogprobs(math.log(first), math.log(1 - first))
        return Generation(text if given else WRITTEN + text, False, 100, 10, labels=labels)

    return script


@pytest.fixture
async def gateway(start_gateway, proxy_release: str):
    """The judge is for the first, the proxy too, and `mine` for the longer one."""
    return await start_gateway(
        prefers(0.8),
        proxy=ScriptedEngine(prefers(0.7)),
        release=proxy_release,
        evaluators={
            "mine": {"kind": SCRIPTED, "weight": 3},
            "absent": {"kind": SCRIPTED, "timeout_s": 0.02, "options": {"seconds": 3600}},
        },
    )


async def test_each_evaluator_says_what_it_makes_of_the_rubric(gateway):
    answer = await gateway.score(
        responses=LONGER_SECOND, evaluators=["mine", "proxy", "absent", "self"]
    )
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["preferred"]) == ("ok", 1)
    said = found["evaluators"]
    assert [(one["name"], one["status"], one["preferred"]) for one in said] == [
        ("mine", "ok", 2),
        ("proxy", "ok", 1),
        ("absent", "timeout", None),
        ("self", "ok", 1),
    ]
    assert [one["probability"] for one in said] == [
        0.1,
        pytest.approx(0.7),
        None,
        pytest.approx(0.8),
    ]
    assert [one["usage"]["calls"] for one in said] == [0, 1, 0, 1]
    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["panel"] == {
        "preferred": 2,
        "probability": pytest.approx((3 * 0.1 + 0.7 + 0.8 + 0.8) / 6),
        "agreement": pytest.approx(0.5),
    }
    assert found["usage"]["calls"] == 1


async def test_they_see_the_rubric_that_was_written_and_not_why(gateway):
    await gateway.score(evaluators=["proxy"])
    [request] = gateway.proxy.requests
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    assert "1. Length (100%)" in text
    assert "The second wins." not in text


async def test_they_are_asked_of_a_kept_judgement_too(gateway):
    await gateway.score()
    found = (await gateway.score(evaluators=["proxy"])).json()
    assert (found["cached"], found["evaluators"][0]["status"]) == (True, "ok")


async def test_a_batch_asks_them_too(gateway):
    line = '{"question": "?", "responses": ["a", "bb"], "evaluators": ["mine"]}'
    found = (await gateway.client.post("/score/batch", content=line.encode())).json()
    assert found["evaluators"][0]["preferred"] == 2


async def test_without_a_rubric_nobody_is_asked(start_gateway):
    gateway = await start_gateway(lambda _: Generation("no", False, 9, 1))
    found = (await gateway.score(evaluators=["self"])).json()
    assert (found["status"], found["evaluators"], found["panel"]) == ("abstain", [], None)


@pytest.mark.parametrize("path", ["/score", "/rubric"])
async def test_an_unknown_one_is_not_found_before_anything_is_judged(path: str, gateway):
    asked = {"question": "?", "responses": ["a", "b"], "evaluators": ["mine", "yours"]}
    answer = await gateway.client.post(path, json=asked)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "absent, mine, proxy, self" in answer.json()["detail"]
    assert gateway.engine.requests == []


@pytest.mark.parametrize("names", [["mine", "mine"], ["x" * 129], [""], ["self"] * 17, "self"])
async def test_names_are_few_and_each_named_once(names: object, gateway):
    answer = await gateway.score(evaluators=names)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_rubric_is_checked_against_the_label(gateway):
    asked = {"question": "?", "responses": LONGER_SECOND, "label": 2}
    asked |= {"evaluators": ["proxy", "mine", "absent"]}
    found = (await gateway.client.post("/rubric", json=asked)).json()
    assert [(one["name"], one["correct"]) for one in found["evaluators"]] == [
        ("proxy", False),
        ("mine", True),
        ("absent", None),
    ]
    assert found["agreement"] == 0.5


async def test_without_a_label_nothing_is_correct_or_wrong(gateway):
    asked = {"question": "?", "responses": LONGER_SECOND, "evaluators": ["proxy", "self"]}
    found = (await gateway.client.post("/rubric", json=asked)).json()
    assert [one["correct"] for one in found["evaluators"]] == [None, None]
    assert found["agreement"] == 1.0


async def test_any_of_them_can_verify(gateway):
    verified = (await gateway.verify(evaluator="mine", label=1, responses=LONGER_SECOND)).json()
    assert (verified["preferred"], verified["reward"]) == (2, -1.0)


async def test_one_that_is_late_to_verify_is_a_504(gateway):
    answer = await gateway.verify(evaluator="absent")
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


async def test_who_can_be_asked_is_listed_with_how_they_are(gateway):
    found = (await gateway.client.get("/evaluators")).json()["evaluators"]
    assert [(one["name"], one["kind"], one["weight"], one["state"]) for one in found] == [
        ("self", "self", 1.0, "closed"),
        ("proxy", "proxy", 1.0, "closed"),
        ("mine", SCRIPTED, 3.0, "closed"),
        ("absent", SCRIPTED, 1.0, "closed"),
    ]
    for _ in range(5):
        await gateway.score(evaluators=["absent"])
    found = (await gateway.client.get("/evaluators")).json()["evaluators"]
    assert found[-1]["state"] == "open"
    answer = (await gateway.score(evaluators=["absent"])).json()
    assert answer["evaluators"][0]["status"] == "unavailable"
    assert gateway.count("proxy_grm_evaluator_open", evaluator="absent") == 1
    assert gateway.count("proxy_grm_evaluations_total", evaluator="absent", status="timeout") == 5


async def test_a_hanging_one_leaves_the_judgement_inside_its_time(start_gateway, proxy_release):
    gateway = await start_gateway(
        prefers(0.8), proxy=ScriptedEngine(seconds=3600), release=proxy_release
    )
    answer = await gateway.score(evaluators=["proxy", "self"], timeout_s=5)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["preferred"]) == ("ok", 1)
    assert [one["status"] for one in found["evaluators"]] == ["timeout", "ok"]
    assert gateway.count("proxy_grm_evaluator_open", evaluator="proxy") == 0


LIES = {"choices": [{"message": {"content": "<eval></eval>\n<answer>1</answer>"}}, "and"]}


@pytest.mark.parametrize(
    ("kind", "answer", "status"),
    [
        ("http", None, "timeout"),
        ("openai", None, "timeout"),
        ("http", (200, b"<html>garbage</html>"), "unavailable"),
        ("openai", (200, b"\x00\xff"), "unavailable"),
        ("http", (500, {"reward": 1.0}), "unavailable"),
        ("openai", (500, {}), "unavailable"),
        ("http", (200, {"reward": "1.0"}), "unavailable"),
        ("openai", (200, LIES), "unavailable"),
        ("openai", (200, {"choices": [{"message": {"content": "one"}}]}), "abstain"),
        ("http", (200, {"reward": 1.0}), "ok"),
    ],
)
async def test_a_judgement_arrives_whatever_somebodys_server_does(
    kind: str, answer: object, status: str, start_gateway, local_server
):
    local_server.answer = lambda _: answer
    options = {"url": local_server.url}
    if kind == "openai":
        options = {"base_url": local_server.url, "model": "m"}
    theirs = {"kind": kind, "timeout_s": 0.5 if answer is None else 60, "attempts": 1}
    gateway = await start_gateway(
        prefers(0.8), evaluators={"theirs": theirs | {"options": options}}
    )
    found = (await gateway.score(evaluators=["theirs", "self"])).json()
    assert (found["status"], found["preferred"]) == ("ok", 1)
    theirs, own = found["evaluators"]
    assert (theirs["status"], own["status"]) == (status, "ok")
    assert theirs["preferred"] == (1 if status == "ok" else None)
    assert theirs["probability"] is None
    assert found["agreement"] == 1.0
    counted = {"evaluator": "theirs", "status": status}
    assert gateway.count("proxy_grm_evaluations_total", **counted) == 1


async def test_the_breaker_opens_and_closes_again_and_metrics_say_so(
    start_gateway, local_server, until
):
    theirs = {"kind": "http", "attempts": 1, "breaker_failures": 3, "breaker_open_s": 0.2}
    gateway = await start_gateway(
        prefers(0.8), evaluators={"theirs": theirs | {"options": {"url": local_server.url}}}
    )

    async def asked() -> str:
        found = (await gateway.score(evaluators=["theirs"])).json()
        assert found["status"] == "ok"
        return found["evaluators"][0]["status"]

    async def is_open() -> bool:
        text = (await gateway.client.get("/metrics")).text
        return 'proxy_grm_evaluator_open{evaluator="theirs"} 1.0' in text

    local_server.answer = lambda _: (500, {})
    assert [await asked() for _ in range(3)] == ["unavailable"] * 3
    assert await is_open()
    local_server.answer = lambda _: (200, {"reward": 1.0})
    await until(lambda: gateway.parts.roster.named("theirs").state == "half_open", 60)
    assert await is_open()
    assert await asked() == "ok"
    assert not await is_open()
    assert gateway.count("proxy_grm_evaluations_total", evaluator="theirs", status="ok") == 1


def torn(request: GenerationRequest) -> Generation:
    """Prefers what it reads first, whatever that is; 0.6 before the evaluation, 0.9 after."""
    return prefers(0.6 if request.max_tokens == 1 else 0.9)(request)


async def test_escalation_ends_with_the_stronger_evaluator_and_says_what_it_took(start_gateway):
    gateway = await start_gateway(
        torn,
        evaluators={"big": {"kind": SCRIPTED, "weight": 3}},
        judging={"escalation": {"evaluator": "big", "votes": 2}},
    )
    found = (await gateway.score(responses=LONGER_SECOND, order="escalate")).json()
    assert (found["status"], found["stopped"], found["preferred"]) == ("ok", "evaluator", 2)
    assert found["probability"] == pytest.approx((0.5 + 3 * 0.1) / 4)
    assert [one["order"] for one in found["verdicts"]].count("swapped") == 3
    assert [(one["name"], one["preferred"]) for one in found["evaluators"]] == [("big", 2)]
    assert found["agreement"] == 0.0  # with the judge, not with itself
    assert found["usage"]["calls"] == len(gateway.engine.requests)
    again = (await gateway.score(responses=LONGER_SECOND, order="escalate")).json()
    assert again["cached"] is False


async def test_escalation_that_needed_no_votes_is_kept(start_gateway):
    gateway = await start_gateway(prefers(0.99))
    sent = {"rubric": {"text": "1. Length (100%)"}, "depth": "verdict", "order": "escalate"}
    first = (await gateway.score(**sent)).json()
    second = (await gateway.score(**sent, seed=5)).json()
    assert (first["stopped"], second["stopped"], second["cached"]) == ("sure", "sure", True)


async def test_escalations_at_the_same_time_take_votes_for_each_seed(start_gateway):
    gateway = await start_gateway(torn, seconds=0.1)
    sent = {"rubric": {"text": "1. Length (100%)"}, "depth": "verdict", "order": "escalate"}
    asked = (gateway.score(**sent, seed=seed) for seed in (0, 1000, 1000))
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    votes = [one.seed // 1000 for one in gateway.engine.requests if one.temperature > 0]
    assert votes.count(0) == votes.count(1) > 0
    assert sorted(one["cached"] for one in answers) == [False, False, True]


async def test_escalation_brings_its_own_votes(gateway):
    answer = await gateway.score(order="escalate", votes=2, temperature=1)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_an_escalation_to_nobody_stops_the_start(start_gateway):
    with pytest.raises(EvaluatorInvalid, match="there is no evaluator 'big'"):
        await start_gateway(judging={"escalation": {"evaluator": "big"}})


async def test_a_rubrics_record_says_how_often_it_led_to_the_verdict(gateway):
    async def record(**changes: object) -> object:
        found = (await gateway.score(responses=LONGER_SECOND, **changes)).json()
        return found["rubric"]["record"]

    assert await record() is None
    assert await record(evaluators=["absent"]) is None
    everybody = ["mine", "proxy", "self", "absent"]
    assert await record(evaluators=everybody) == {"opinions": 3, "agreed": 2}
    assert await record(evaluators=everybody) == {"opinions": 3, "agreed": 2}
    assert await record(evaluators=everybody, cache="bypass") == {"opinions": 3, "agreed": 2}
    text = {"text": "1. Length (100%)"}
    assert await record(evaluators=["mine"], rubric=text) == {"opinions": 3, "agreed": 2}
    again = await record(evaluators=["mine"], rubric=text, question="Another one?")
    assert again == {"opinions": 4, "agreed": 2}
    assert await record() == {"opinions": 4, "agreed": 2}
    assert await record(rubric={"text": "1. Other (100%)"}) is None
    ranked = await gateway.client.post("/rank", json={"question": "?", "responses": LONGER_SECOND})
    assert ranked.json()["rubric"]["record"] == {"opinions": 4, "agreed": 2}


async def test_a_label_adds_to_the_record_and_its_absence_does_not(gateway):
    asked = {"question": "?", "responses": LONGER_SECOND, "evaluators": ["proxy", "mine"]}
    for label, record in ((None, None), (2, {"opinions": 2, "agreed": 1})):
        found = await gateway.client.post("/rubric", json=asked | {"label": label})
        assert found.json()["rubric"]["record"] == record
