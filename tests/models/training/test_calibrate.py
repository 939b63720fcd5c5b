from __future__ import annotations

import json
import random

import pytest
from proxy_grm_client import Judgement

from models.benchmarks.toyworld import Judged
from models.calibration import OrderCalibration, sigmoid
from models.comparison import other
from models.toyworld import CaseOptions, make_case
from models.training.calibrate import calibrate_depth, outcomes_of
from models.training.platt import Outcome
from service.judging.probability import mirrored

_rng = random.Random(0)
_CASES = [make_case(_rng, CaseOptions(stratum="text")) for _ in range(30)]
LABELED = {label: next(c for c in _CASES if c.label == label) for label in (1, 2)}


def judged(label, *passes):
    """A case and the passes over it: order, and P(response 1 is better) as a service gives it.

    A third item is how much the judge surprised itself.
    """
    answered = {
        "id": "x",
        "status": "ok",
        "reason": None,
        "preferred": None,
        "probability": None,
        "order_consistent": None,
        "rubric": None,
        "evaluation": None,
        "verdicts": [
            {
                "order": order,
                "preferred": None if probability is None else 1 if probability >= 0.5 else 2,
                "probability": probability,
                "surprisal": next(iter(surprisal), None),
                "text": "…",
            }
            for order, probability, *surprisal in passes
        ],
        "release": {"name": "small", "fingerprint": "f", "purpose": "demo"},
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "timing": {"queue_s": 0, "image_s": 0, "engine_s": 0, "total_s": 0},
        "cached": False,
    }
    return Judged(LABELED[label], Judgement.model_validate(answered))


@pytest.mark.parametrize("order", ["given", "swapped"])
@pytest.mark.parametrize("label", [1, 2])
def test_swapped_verdicts_are_turned_back_to_what_was_read_first(order, label):
    first_read_wins = 0.83
    on_the_wire = mirrored(first_read_wins, order)
    (found,) = outcomes_of([judged(label, (order, on_the_wire))], order)
    read_first = label if order == "given" else other(label)
    assert found.probability == pytest.approx(first_read_wins)
    assert found.first_is_better is (read_first == 1)


def test_only_the_order_that_is_asked_for_counts():
    both = [judged(1, ("given", 0.9), ("swapped", 0.7)), judged(2, ("given", 0.2))]
    assert outcomes_of(both, "given") == [Outcome(0.9, True), Outcome(0.2, False)]
    assert outcomes_of(both, "swapped") == [Outcome(pytest.approx(0.3), False)]


def test_the_surprise_comes_along():
    found = judged(1, ("given", 0.9, 1.5), ("swapped", 0.7, 0.0))
    assert outcomes_of([found], "given") == [Outcome(0.9, True, 1.5)]
    assert outcomes_of([found], "swapped") == [Outcome(pytest.approx(0.3), False, 0.0)]


def test_abstentions_are_left_out():
    some = [judged(1, ("given", None), ("swapped", 0.6)), judged(1, ("given", 0.0))]
    assert outcomes_of(some, "given") == [Outcome(0.0, True)]
    assert outcomes_of([judged(1, ("given", None))], "given") == []
    assert outcomes_of([], "swapped") == []


def test_each_order_gets_its_own_scaling_and_its_error_falls():
    rng = random.Random(3)
    cases = []
    for _ in range(3000):
        label = rng.choice([1, 2])
        passes = []
        for order, temperature, bias in (("given", 3.0, 0.5), ("swapped", 2.0, 0.0)):
            first_wins = label if order == "given" else other(label)
            # Drawn until the truth is what it has to be: the judge is overconfident.
            while True:
                logit = rng.gauss(0, 4)
                if (rng.random() < sigmoid(logit / temperature + bias)) is (first_wins == 1):
                    break
            passes.append((order, mirrored(sigmoid(logit), order)))
        cases.append(judged(label, *passes))
    fitted, report = calibrate_depth(cases)
    assert fitted.given.temperature == pytest.approx(3, rel=0.2)
    assert fitted.swapped.temperature == pytest.approx(2, rel=0.2)
    for order in ("given", "swapped"):
        assert report[order]["passes"] == 1500
        assert report[order]["ece_after"] < 0.05 < report[order]["ece_before"]


def test_who_is_wrong_where_it_was_surprised_is_told_from_who_is_right():
    rng = random.Random(5)
    cases = []
    for _ in range(1000):
        label, misread = rng.choice([1, 2]), rng.random() < 0.1
        said = other(label) if misread else label
        surprisal = rng.uniform(0.5, 2) if misread else rng.uniform(0, 0.6)
        cases.append(judged(label, ("given", 0.99 if said == 1 else 0.01, surprisal)))
    fitted, report = calibrate_depth(cases)
    assert fitted.given.doubt > 0
    assert report["given"]["auroc_before"] == pytest.approx(0.5, abs=0.05)
    assert report["given"]["auroc_after"] > 0.95


def test_a_judge_that_always_abstains_stays_uncalibrated():
    fitted, report = calibrate_depth([judged(1, ("given", None), ("swapped", None))] * 3)
    assert fitted == OrderCalibration()
    assert [report[order]["passes"] for order in ("given", "swapped")] == [0, 0]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
