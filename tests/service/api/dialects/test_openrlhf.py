from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def payload(picture) -> dict[str, Any]:
    """Two rollouts as OpenRLHF's executor sends them.

    Read from OpenRLHF/OpenRLHF, release 0.11.2: the client is openrlhf/utils/agent.py, lines
    327-365, its example of a server openrlhf/cli/serve_rm.py, lines 128-135. What stands in the
    labels is ours; OpenRLHF passes them on.
    """
    prompt = "<|im_start|>user\nHow many circles?<|im_end|>\n<|im_start|>assistant\n"
    label = {
        "question": "How many circles?",
        "images": [picture()],
        "reference": "There are three.",
    }
    return {
        "query": [prompt + "There are two.<|im_end|>", prompt + "There is one.<|im_end|>\n"],
        "prompts": [prompt, prompt],
        "labels": [json.dumps(label), json.dumps(label | {"images": [picture()["data"]]})],
    }


async def ask(gateway: Any, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = await gateway.client.post("/get_reward", json=body)
    return answer.status_code, answer.json()


async def test_the_reward_is_how_much_better_than_the_reference_a_rollout_is(
    speaking, payload, picture
):
    status, answer = await ask(speaking, payload)
    assert status == 200
    assert set(answer) == {"rewards", "scores", "extra_logs"}
    assert answer["extra_logs"] == {"failed": [0.0, 0.0]}
    for said, reward, score in zip(
        ("There are two.", "There is one."), answer["rewards"], answer["scores"], strict=True
    ):
        scored = await speaking.score(
            question="How many circles?",
            responses=[said, "There are three."],
            images=[picture()],
            cache="bypass",
        )
        assert reward == pytest.approx(2 * scored.json()["probability"] - 1)
        assert score == pytest.approx(scored.json()["probability"])


async def test_an_abstention_is_flagged_and_the_others_are_not(speaking, payload):
    payload["query"][1] = payload["query"][1].replace("There is one.", "mumble")
    status, answer = await ask(speaking, payload)
    assert status == 200
    assert answer["extra_logs"] == {"failed": [0.0, 1.0]}
    assert (answer["rewards"][1], answer["scores"][1]) == (0.0, 0.5)
    assert speaking.count("proxy_grm_abstentions_total", reason="unreadable") == 1


async def test_one_rollout_at_a_time_is_what_it_sends_most(speaking, payload):
    one = {name: values[:1] for name, values in payload.items()}
    status, answer = await ask(speaking, one)
    assert (status, len(answer["rewards"])) == (200, 1)
    nothing = {name: [] for name in payload}
    assert await ask(speaking, nothing) == (
        200,
        {"rewards": [], "scores": [], "extra_logs": {"failed": []}},
    )


async def test_an_engine_that_is_away_is_waited_for(speaking, payload):
    speaking.engine.fail()
    asking = asyncio.create_task(ask(speaking, payload))
    await asyncio.sleep(0.1)
    assert not asking.done()
    await speaking.engine.start()
    status, answer = await asking
    assert (status, answer["extra_logs"]) == (200, {"failed": [0.0, 0.0]})


async def test_what_is_wrong_is_told(speaking, payload):
    label = {"question": "How many?", "reference": "Two."}
    labels = ("no json", "[]", '{"question": "x"}', json.dumps(label | {"reference": " "}))
    wrong = [payload | {"labels": [label] * 2} for label in labels]
    wrong.append(payload | {"labels": payload["labels"][:1]})
    wrong.append(payload | {"labels": [json.dumps(label | {"images": [{"path": "x"}]})] * 2})
    wrong.append({"query": ["x"]})
    for body in wrong:
        status, problem = await ask(speaking, body)
        assert (status, problem["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "label",
    [
        {"images": 5},
        {"images": [5]},
        {"images": [["x"]]},
        {"images": [{"data": ["x"]}]},
        {"images": [{"url": "https://here.example/", "data": "x"}]},
        {"images": ["data:"]},
        {"images": ["file:///etc/passwd"]},
        {"images": [{"data": "x"}] * 65},
        {"question": "half a pair: \ud800"},
        {"reference": ["Two."]},
        {"reference": None},
    ],
)
async def test_a_label_of_another_shape_is_refused_before_anything_is_judged(
    label: dict[str, Any], speaking, payload
):
    good, bad = {"question": "How many?", "reference": "Two."}, payload["labels"][0]
    bad = json.dumps(json.loads(bad) | label)
    status, problem = await ask(speaking, payload | {"labels": [json.dumps(good), bad]})
    assert (status, problem["code"]) == (422, "invalid_request")
    assert problem["errors"][0]["field"].startswith("labels.1")
    assert speaking.engine.requests == []


@pytest.mark.parametrize("label", ["[" * 100_000, "[" + "[]," * 100_000 + "[]]", "9" * 10_000])
async def test_a_label_that_is_hard_to_read_is_refused(label: str, speaking, payload):
    status, problem = await ask(speaking, payload | {"labels": [label] * 2})
    assert (status, problem["code"]) == (422, "invalid_request")


async def test_more_rollouts_than_are_judged_in_one_request_are_refused(speaking, payload):
    many = {name: values[:1] * 1025 for name, values in payload.items()}
    many["labels"] = [json.dumps({"question": "How many?", "reference": "Two."})] * 1025
    status, problem = await ask(speaking, many)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert "at most 1024 are possible, these are 1025" in problem["detail"]
    assert speaking.engine.requests == []


async def test_a_rollout_that_is_too_long_is_refused_before_the_others_are_judged(
    start_gateway, payload
):
    gateway = await start_gateway(dialects=("openrlhf",), limits={"text_characters": 100})
    payload["query"][1] += "x" * 100
    status, problem = await ask(gateway, payload)
    assert (status, problem["code"]) == (413, "payload_too_large")
    assert gateway.engine.requests == []


async def test_a_rollout_that_says_nothing_abstains_and_costs_the_others_nothing(speaking, payload):
    payload["query"][0] = payload["query"][0].replace("There are two.", " ")
    status, answer = await ask(speaking, payload)
    assert status == 200
    assert answer["extra_logs"] == {"failed": [1.0, 0.0]}
    assert answer["rewards"][0] == 0.0 != answer["rewards"][1]


async def test_the_headers_say_what_bare_numbers_are_worth(speaking, payload):
    answer = await speaking.client.post("/get_reward", json=payload)
    assert answer.headers["x-proxy-grm-purpose"] == "demo"
    assert answer.headers["x-proxy-grm-release"] == "small"
