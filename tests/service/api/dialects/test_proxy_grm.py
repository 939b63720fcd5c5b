from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def payload(picture) -> dict[str, Any]:
    """As the published trainer sends it.

    Read from Qwen-Applications/Proxy-GRM at commit b6cf23d16e49d485180aa1e029da41a73edf26f1: the
    client is verl/verl/utils/reward_score/grm_reward_with_instruct.py, lines 96-123, its server
    proxy/proxy.py, lines 23-130.
    """
    return {
        "question": "How many circles are there?",
        "chosen": "There are two.",
        "rejected": "There are three.",
        "image": picture()["data"],
        "answer": "<answer>1</answer>",
        "rubric": "<rubric>\n1. Count (100%): the number is right.\n</rubric>",
    }


async def ask(gateway: Any, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = await gateway.client.post("/get_reward_mllm", json=body)
    return answer.status_code, answer.json()


async def test_the_reward_is_whether_the_proxy_agrees_with_the_position(speaking, payload):
    verified = await speaking.client.post(
        "/verify",
        json={
            "question": payload["question"],
            "responses": [payload["chosen"], payload["rejected"]],
            "images": [{"data": payload["image"]}],
            "rubric": {"text": payload["rubric"]},
            "label": 1,
        },
    )
    agrees = verified.json()["reward"]
    assert agrees in (1.0, -1.0)
    assert await ask(speaking, payload) == (200, {"reward": agrees})
    assert await ask(speaking, payload | {"answer": "2"}) == (200, {"reward": -agrees})
    assert await ask(speaking, payload | {"answer": 1}) == (200, {"reward": agrees})


async def test_the_proxy_sees_the_positions_as_they_are_and_the_rubric_alone(speaking, payload):
    payload["rubric"] = "<rubric>\n1. Count (100%)\n<justify>The first is right.</justify></rubric>"
    await ask(speaking, payload)
    [request] = speaking.proxy.requests
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    assert text.index("There are two.") < text.index("There are three.")
    assert "1. Count (100%)" in text
    assert "The first is right" not in text


@pytest.mark.parametrize("change", [{"image": ""}, {"image": None}, {"more": 1}])
async def test_a_picture_may_be_missing_and_other_fields_are_left_alone(change, speaking, payload):
    status, answer = await ask(speaking, payload | change)
    assert status == 200
    assert answer["reward"] in (1.0, -1.0)


async def test_an_abstention_is_no_number_and_is_counted(speaking, payload):
    status, problem = await ask(speaking, payload | {"question": "mumble"})
    assert (status, problem["code"]) == (503, "abstained")
    counted = {"route": "/get_reward_mllm", "outcome": "abstained"}
    assert speaking.count("proxy_grm_requests_total", **counted) == 1
    assert speaking.count("proxy_grm_abstentions_total", reason="unreadable") == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"answer": ""}, "invalid_request"),
        ({"answer": "1 or 2"}, "invalid_request"),
        ({"answer": True}, "invalid_request"),
        ({"answer": 3}, "invalid_request"),
        (
            {"rubric": "1. Count (100%)\n<eval>…</eval><answer>1</answer></rubric>"},
            "invalid_request",
        ),
        ({"rubric": ""}, "invalid_request"),
        ({"question": None}, "invalid_request"),
        ({"chosen": ""}, "invalid_request"),
        ({"rejected": " \n"}, "invalid_request"),
        ({"image": "file:///etc/passwd"}, "invalid_request"),
        ({"image": 5}, "invalid_request"),
        ({"image": ["x"]}, "invalid_request"),
        ({"image": "/etc/passwd"}, "image_rejected"),
        ({"image": "https://host.example/cat.png"}, "image_rejected"),
    ],
)
async def test_what_is_wrong_is_told(change, code, speaking, payload):
    status, problem = await ask(speaking, payload | change)
    assert (status, problem["code"]) == (422, code)
    assert speaking.proxy.requests == []
