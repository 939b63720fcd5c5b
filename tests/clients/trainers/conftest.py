"""A judge that likes numbers: the larger the first number in a response, the better."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import httpx
import pytest

UNREADABLE = "mumble"


class Judge:
    """Answers `/score` and `/rank`; what holds `mumble` cannot be judged.

    Attributes:
        purpose: of its release.
        problem: answered instead, as status and code.
    """

    def __init__(self, judgement: dict[str, Any]) -> None:
        self._judgement = judgement
        self.purpose = "production"
        self.problem: tuple[int, str] | None = None
        self.bodies: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append((request.url.path, body))
        if self.problem is not None:
            status, code = self.problem
            return httpx.Response(status, json={"code": code, "detail": f"this is {code}"})
        answer = self._score(body) if request.url.path == "/score" else self._rank(body)
        answer |= {"release": {"name": "r", "fingerprint": "f", "purpose": self.purpose}}
        return httpx.Response(200, json=answer)

    def _score(self, body: dict[str, Any]) -> dict[str, Any]:
        found = probability(*body["responses"])
        if found is None:
            abstains = {"status": "abstain", "reason": "unreadable"}
            return self._judgement | abstains | {"preferred": None, "probability": None}
        return self._judgement | {"preferred": 1 if found >= 0.5 else 2, "probability": found}

    def _rank(self, body: dict[str, Any]) -> dict[str, Any]:
        responses = body["responses"]
        met = [
            (one, other, probability(responses[one], responses[other]))
            for one, other in combinations(range(len(responses)), 2)
        ]
        rewards = [0.0] * len(responses)
        for one, other, found in met:
            if found is not None:
                rewards[one] += (2 * found - 1) / (len(responses) - 1)
                rewards[other] -= (2 * found - 1) / (len(responses) - 1)
        read = {index for *pair, found in met if found is not None for index in pair}
        abstains = UNREADABLE in body["question"]
        kept = ("rubric", "usage", "timing")
        return {name: self._judgement[name] for name in kept} | {
            "id": "rank_1",
            "status": "abstain" if abstains else "ok",
            "reason": "unreadable" if abstains else None,
            "ranking": sorted(read, key=lambda index: -rewards[index]),
            "scores": [
                {"index": index, "status": "ok", "strength": 0, "interval": [0, 0]}
                | {"win_rate": 0, "reward": reward}
                if index in read
                else {"index": index, "status": "abstain"}
                | dict.fromkeys(("strength", "interval", "win_rate", "reward"))
                for index, reward in enumerate(rewards)
            ],
            "comparisons": [
                {
                    "first": one,
                    "second": other,
                    "probability": found,
                    "status": "abstain" if found is None else "ok",
                }
                for one, other, found in met
            ],
            "spent": {"comparisons": len(met), "tokens": 1},
        }


def probability(one: str, other: str) -> float | None:
    """That the first is better; None where one of them cannot be judged."""
    if UNREADABLE in one or UNREADABLE in other:
        return None
    first, second = (int(re.findall(r"\d+", text)[0]) for text in (one, other))
    return 0.5 if first == second else 0.9 if first > second else 0.1


@pytest.fixture
def judge(judgement: dict[str, Any]) -> Judge:
    """The judge, and what it was asked."""
    return Judge(judgement)


@pytest.fixture
def opened(judge: Judge) -> Any:
    """Makes adapters that ask the judge, and closes them."""
    made: list[Any] = []

    def make(kind: Callable[..., Any], **options: Any) -> Any:
        transport = httpx.MockTransport(judge)
        made.append(kind("http://grm", client={"transport": transport}, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
