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
