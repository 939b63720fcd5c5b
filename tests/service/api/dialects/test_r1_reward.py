from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def payload(picture) -> dict[str, Any]:
    """Two prompts, two and three rollouts, as R1-Reward's trainer sends them.

    Read from yfzhang114/r1_reward at commit 176aba8bbe114122f3d6e537f11ced8421ac13d8: the client is
    openrlhf/utils/remote_rm_utils.py, lines 11-40, its server
    openrlhf/models/remote_rm/math_verifier_mllm.py (prompts are JSON texts of messages).
    """
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "data:image;base64," + picture()["data"]},
                {"type": "text", "text": "How many circles are there?"},
            ],
        }
    ]
    prompts = [json.dumps(messages), "What is the capital of France?"]
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>"
    said = [
        (0, "There are two."),
        (1, "Paris."),
        (0, "There are three."),
        (1, "Lyon."),
        (1, "Nice."),
    ]
    return {
        "query": [turn.format("<|vision_start|><|image_pad|>…", text) for _, text in said],
        "prompts": [prompts[prompt] for prompt, _ in said],
    }


async def ask(gateway: Any, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = await gateway.client.post("/get_reward_mllm", json=body)
    return answer.status_code, answer.json()


async def test_the_rollouts_of_each_prompt_are_ranked_with_each_other(speaking, payload):
    status, answer = await ask(speaking, payload)
    assert status == 200
    assert set(answer) == {"rewards"}
    first, second, third, fourth, fifth = answer["rewards"]
    assert first + third == pytest.approx(0)
    assert second + fourth + fifth == pytest.approx(0)
    ranked = await speaking.client.post(
        "/rank",
        json={"question": payload["prompts"][1], "responses": ["Paris.", "Lyon.", "Nice."]},
    )
    scores = [score["reward"] for score in ranked.json()["scores"]]
    assert [second, fourth, fifth] == pytest.approx(scores)


async def test_the_judge_sees_question_picture_and_what_was_said(speaking, payload):
    await ask(speaking, payload)
    asked = [request.prompt.user for request in speaking.engine.requests]
    about_circles = [parts for parts in asked if "How many circles" in str(parts)]
    assert about_circles
    for parts in about_circles:
        assert any(not isinstance(part, str) for part in parts)
        text = "".join(part for part in parts if isinstance(part, str))
        assert "There are two." in text
        assert "<|im_start|>" not in text


async def test_an_abstention_is_no_number_and_is_counted(speaking, payload):
    payload["prompts"] = [prompt.replace("capital", "mumble") for prompt in payload["prompts"]]
    status, problem = await ask(speaking, payload)
    assert (status, problem["code"]) == (503, "abstained")
    counted = {"route": "/get_reward_mllm", "outcome": "abstained"}
    assert speaking.count("proxy_grm_requests_total", **counted) == 1


async def test_what_is_wrong_is_told(speaking, payload):
    lonely = {"query": payload["query"][:2], "prompts": payload["prompts"][:2]}
    uneven = payload | {"prompts": payload["prompts"][:3]}
    silent = payload | {"query": ["<|im_start|>assistant\n<|im_end|>"] * 5}
    unmarked = payload | {"query": ["Paris."] * 5}
    for body in (lonely, uneven, silent, unmarked, {"query": "x", "prompts": ["x"]}, {"query": []}):
        status, problem = await ask(speaking, body)
        assert (status, problem["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "prompt",
    [
        '[{"role": "user", "content": 5}]',
        '[{"role": "user", "content": "half a pair: \\ud800"}]',
        '[{"role": "user", "content": ["How many?"]}]',
        '[{"role": "user", "content": [{"type": "text"}]}]',
        '[{"role": "user", "content": [{"type": "text", "text": 5}]}]',
        '[{"role": "user", "content": [{"text": "How many?"}]}]',
        '[{"role": "user", "content": [{"type": "image", "image": 5}]}]',
        '[{"role": "user", "content": [{"type": "image", "image": ["x"]}]}]',
        '[{"role": "user", "content": [{"type": "image", "image": "file:///etc/passwd"}]}]',
        '[{"role": "assistant", "content": "Three."}]',
        '[{"content": "How many?"}]',
        "[1, 2]",
        "[" + "[]," * 100_000 + "[]]",
    ],
)
@pytest.mark.parametrize("known", [True, False])
async def test_messages_of_another_shape_are_refused(prompt: str, known: bool, speaking):
    before = prompt if known else "<|im_start|>assistant\n"
    body = {"query": [before + "Two.", before + "Three."], "prompts": [prompt] * 2}
    status, problem = await ask(speaking, body)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert "prompts: " in problem["detail"]
    assert speaking.engine.requests == []


@pytest.mark.parametrize("prompt", ["[Maths] How many?", "9" * 5000, '{"how": "many"}', "[" * 5000])
async def test_a_prompt_that_is_no_list_is_the_question(prompt: str, speaking):
    body = {"query": [prompt + "Two.", prompt + "Three."], "prompts": [prompt] * 2}
    status, _ = await ask(speaking, body)
    assert status == 200
    assert prompt in str(speaking.engine.requests[0].prompt.user)


async def test_more_rollouts_than_are_judged_in_one_request_are_refused(speaking):
    body = {"query": ["How many? Two."] * 1025, "prompts": ["How many?"] * 1025}
    status, problem = await ask(speaking, body)
    assert (status, problem["code"]) == (422, "invalid_request")
    assert "at most 1024 are possible" in problem["detail"]
