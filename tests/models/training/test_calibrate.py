from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy_grm_client import Judgement

from models.benchmarks.toyworld import Judged
from models.calibration import OrderCalibration, Platt, sigmoid
from models.comparison import other
from models.toyworld import CaseOptions, make_case
from models.training.calibrate import Outcome, calibrate_depth, fit_platt, outcomes_of
from service.judging.probability import mirrored

PROBABILITY = st.sampled_from([0.0, 1.0, 0.5, 5e-324, 1 - 2**-53]) | st.floats(0, 1)
OUTCOMES = st.lists(st.builds(Outcome, PROBABILITY, st.booleans()), max_size=25)

_rng = random.Random(0)
_CASES = [make_case(_rng, CaseOptions(stratum="text")) for _ in range(30)]
LABELED = {label: next(c for c in _CASES if c.label == label) for label in (1, 2)}


def simulated(number, temperature, bias, seed=0):
    """What a judge says whose logits have to be scaled by just this."""
    rng = random.Random(seed)
    logits = [rng.gauss(0, 3) for _ in range(number)]
    return [
        Outcome(sigmoid(logit), rng.random() < sigmoid(logit / temperature + bias))
        for logit in logits
    ]


def surprise(outcomes, platt):
    """Mean negative log-likelihood in nats, probabilities of 0 and 1 taken as nearly so."""
    total = 0.0
    for outcome in outcomes:
        found = platt.apply(min(1 - 1e-7, max(1e-7, outcome.probability)))
        total -= math.log(found if outcome.first_is_better else 1 - found)
    return total / max(1, len(outcomes))


def judged(label, *passes):
    """A case and the passes over it: order, and P(response 1 is better) as a service gives it."""
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
                "text": "…",
            }
            for order, probability in passes
        ],
        "release": {"name": "small", "fingerprint": "f", "purpose": "demo"},
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
        "timing": {"queue_s": 0, "image_s": 0, "engine_s": 0, "total_s": 0},
        "cached": False,
    }
    return Judged(LABELED[label], Judgement.model_validate(answered))


# Fitting


@pytest.mark.parametrize(
    ("temperature", "bias"), [(2.0, 0.3), (0.7, -0.5), (1.0, 0.0), (4.0, -1.0)]
)
def test_a_known_temperature_and_bias_are_found(temperature, bias):
    found = fit_platt(simulated(6000, temperature, bias))
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.bias == pytest.approx(bias, abs=0.12)


def test_of_nothing_nothing_is_changed():
    assert fit_platt([]) == Platt()


def test_few_outcomes_change_little():
    found = fit_platt([Outcome(0.8, True), Outcome(0.3, False)])
    assert found.temperature == pytest.approx(1, abs=0.2)
    assert found.bias == pytest.approx(0, abs=0.2)


def test_the_prior_is_worth_its_number_of_outcomes():
    outcomes = simulated(200, 4.0, 0.0)
    strengths = (0.1, 1.0, 1000.0, 1e9)
    temperatures = [fit_platt(outcomes, prior=prior).temperature for prior in strengths]
    assert temperatures == sorted(temperatures, reverse=True)
    assert temperatures[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("number", [1, 10, 2000])
def test_verdicts_that_are_all_right_leave_the_fit_finite(number):
    rng = random.Random(1)
    outcomes = [Outcome(p := rng.random(), p >= 0.5) for _ in range(number)]
    found = fit_platt(outcomes)
    assert 0.01 < found.temperature < 2
    assert abs(found.bias) < 1
    if number > 1:
        assert surprise(outcomes, found) <= surprise(outcomes, Platt())


def test_probabilities_of_0_and_1_are_taken_as_logits_of_16():
    found = fit_platt([Outcome(float(n % 2), n % 2 == 1) for n in range(100)])
    # Platt's target for 50 of 50 is 51/52.
    assert sigmoid(16 / found.temperature) == pytest.approx(51 / 52, abs=1e-3)
    assert found.bias == pytest.approx(0, abs=1e-6)


def test_a_judge_who_is_always_sure_and_wrong_is_believed_no_more():
    found = fit_platt([Outcome(float(n % 2), n % 2 == 0) for n in range(100)])
    assert found.apply(0.99) == pytest.approx(0.5, abs=0.01)


def test_a_judge_who_reads_the_coin_is_made_unsure():
    rng = random.Random(2)
    outcomes = [Outcome(rng.choice([0.01, 0.99]), rng.random() < 0.5) for _ in range(2000)]
    found = fit_platt(outcomes)
    assert found.apply(0.99) == pytest.approx(0.5, abs=0.05)


def test_where_the_probability_says_nothing_the_bias_still_says_how_often():
    # Always sure of the second response, while nine in ten times the first is better.
    found = fit_platt([Outcome(0.03, n % 10 != 0) for n in range(1000)])
    assert found.apply(0.03) == pytest.approx(0.9, abs=0.03)


@settings(deadline=None)
@given(OUTCOMES)
def test_no_outcomes_make_it_blow_up_or_do_worse_than_nothing(outcomes):
    found = fit_platt(outcomes)
    assert math.isfinite(found.temperature)
    assert math.isfinite(found.bias)
    # Smoothed targets and prior cost a little where there is next to nothing to fit.
    slack = 2 / max(1, len(outcomes)) * (1 + math.log1p(len(outcomes)))
    assert surprise(outcomes, found) <= surprise(outcomes, Platt()) + slack


@settings(deadline=None, max_examples=50)
@given(OUTCOMES)
def test_turning_every_outcome_round_turns_the_bias_round(outcomes):
    found = fit_platt(outcomes)
    turned = fit_platt([Outcome(1 - o.probability, not o.first_is_better) for o in outcomes])
    assert turned.temperature == pytest.approx(found.temperature, rel=1e-2)
    assert turned.bias == pytest.approx(-found.bias, abs=1e-2)


# What is fitted to


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


def test_a_judge_that_always_abstains_stays_uncalibrated():
    fitted, report = calibrate_depth([judged(1, ("given", None), ("swapped", None))] * 3)
    assert fitted == OrderCalibration()
    assert [report[order]["passes"] for order in ("given", "swapped")] == [0, 0]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
