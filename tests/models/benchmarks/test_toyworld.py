from __future__ import annotations

import random
from typing import Any

import pytest
from proxy_grm_client import Judgement

from models.benchmarks.toyworld import main, summary, wilson_interval
from models.toyworld import ToyCase, make_case


def judgement(preferred: int | None, consistent: bool | None = True) -> Judgement:
    answered: dict[str, Any] = {
        "id": "x",
        "status": "ok" if preferred else "abstain",
        "reason": None if preferred else "unreadable",
        "preferred": preferred,
        "probability": {None: None, 1: 0.9, 2: 0.1}[preferred],
        "order_consistent": consistent if preferred else None,
        "rubric": None,
        "evaluation": None,
        "verdicts": [{"order": "given", "preferred": preferred, "probability": None, "text": "…"}],
        "release": {"name": "tiny", "fingerprint": "f", "purpose": "demo"},
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "cached_tokens": 0},
        "timing": {"queue_s": 0, "image_s": 0, "engine_s": 0, "total_s": 0},
        "cached": False,
    }
    return Judgement.model_validate(answered)


def case_labeled(label: int, family: str) -> ToyCase:
    rng = random.Random(0)
    return next(c for c in iter(lambda: make_case(rng, family), None) if c.label == label)


def test_right_wrong_and_unreadable_are_told_apart():
    judged = [
        (case_labeled(1, "count"), judgement(1)),
        (case_labeled(2, "count"), judgement(1, consistent=False)),
        (case_labeled(2, "colour"), judgement(2)),
        (case_labeled(1, "colour"), judgement(None)),
    ]
    figures = summary(judged)
    assert figures["n"] == 4
    assert figures["accuracy"] == 0.5
    assert figures["accuracy_by_family"] == {"colour": 0.5, "count": 0.5}
    assert figures["readable"] == 0.75
    assert figures["order_consistent"] == 0.5
    assert figures["completion_tokens"] == 12
    assert figures["fingerprint"] == "f"


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)],
)
def test_the_interval_is_wilsons(right: int, n: int, low: float, high: float):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=1e-4)


def test_without_a_service_it_says_so_at_once(capsys: pytest.CaptureFixture[str]):
    assert main(["--cases", "1", "--url", "http://127.0.0.1:9"]) == 1
    assert "Is a service running at http://127.0.0.1:9?" in capsys.readouterr().err
