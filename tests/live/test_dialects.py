"""The published proxy client's requests on drawn cases whose better response is known."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from models.toyworld import ToyCase, make_case

from .conftest import START_S, LiveGateway, body_of

CASES = 200


def wait_for_the_proxy(client: httpx.Client) -> None:
    """Its engine starts with the first who asks for it."""
    asked = {"question": "?", "responses": ["a", "b"], "rubric": {"text": "1. Truth (100%)"}}
    for _ in range(5):
        answer = client.post("/verify", json=asked | {"timeout_s": START_S}, timeout=START_S + 10)
        if answer.status_code == 200:
            return
    raise AssertionError(answer.text)


def payload(case: ToyCase, told: int) -> dict[str, str]:
    """As the published client sends it; see tests/service/api/dialects/test_proxy_grm.py."""
    body = body_of(case)
    return {
        "question": case.question,
        "chosen": case.responses[0],
        "rejected": case.responses[1],
        "image": body["images"][0]["data"],
        "answer": f"<answer>{told}</answer>",
        "rubric": f"<rubric>\n{case.rubric.text}\n</rubric>",
    }


def test_rewards_are_right_on_drawn_cases(gateway: LiveGateway, client: httpx.Client) -> None:
    """Every second case is told the wrong position; the reward is right where it says so."""
    wait_for_the_proxy(client)
    rng = random.Random("published proxy client")
    cases = [make_case(rng) for _ in range(CASES)]

    def rewarded(place: int) -> tuple[bool, float | None]:
        case = cases[place]
        told = case.label if place % 2 == 0 else 3 - case.label
        answer = client.post("/get_reward_mllm", json=payload(case, told))
        for _ in range(5):
            if answer.status_code != 504:  # a slow machine is not a wrong reward
                break
            answer = client.post("/get_reward_mllm", json=payload(case, told))
        if answer.status_code == 503:
            assert answer.json()["code"] == "abstained"
            return told == case.label, None
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"reward": answer.json()["reward"]}
        return told == case.label, answer.json()["reward"]

    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(rewarded, range(CASES)))
    assert {reward for _, reward in found} <= {1.0, -1.0, None}
    right = found[True, 1.0] + found[False, -1.0]
    assert right >= 0.85 * CASES, found
