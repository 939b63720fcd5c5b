from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import Platt, sigmoid
from models.training.platt import Outcome, fit_platt

PROBABILITY = st.sampled_from([0.0, 1.0, 0.5, 5e-324, 1 - 2**-53]) | st.floats(0, 1)
SURPRISAL = st.none() | st.floats(0, 30)
OUTCOMES = st.lists(st.builds(Outcome, PROBABILITY, st.booleans(), SURPRISAL), max_size=25)


def simulated(number, temperature, bias, seed=0):
    """What a judge says whose logits have to be scaled by just this."""
    rng = random.Random(seed)
    logits = [rng.gauss(0, 3) for _ in range(number)]
    return [
        Outcome(sigmoid(logit), rng.random() < sigmoid(logit / temperature + bias))
        for logit in logits
    ]


def doubting(number, doubt, seed=0, *, told=True):
    """A judge who is as sure of what it misread as of the rest, and was surprised by that."""
    rng = random.Random(seed)
    outcomes = []
    for _ in range(number):
        surprisal = rng.expovariate(2)
        logit = rng.choice([-6.0, 6.0])
        truth = rng.random() < Platt(temperature=1.5, bias=0.2, doubt=doubt).apply(
            sigmoid(logit), surprisal
        )
        outcomes.append(Outcome(sigmoid(logit), truth, surprisal if told else None))
    return outcomes


def surprise(outcomes, platt):
    """Mean negative log-likelihood in nats, probabilities of 0 and 1 taken as nearly so."""
    total = 0.0
    for outcome in outcomes:
        found = platt.apply(min(1 - 1e-7, max(1e-7, outcome.probability)), outcome.surprisal)
        total -= math.log(found if outcome.first_is_better else 1 - found)
    return total / max(1, len(outcomes))


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


@pytest.mark.parametrize("doubt", [1.0, 4.0, 20.0])
def test_a_known_doubt_is_found(doubt):
    found = fit_platt(doubting(4000, doubt))
    assert found.doubt == pytest.approx(doubt, rel=0.6)
    for surprisal in (0.02, 0.3, 1.0):
        true = Platt(temperature=1.5, bias=0.2, doubt=doubt).apply(sigmoid(6.0), surprisal)
        assert found.apply(sigmoid(6.0), surprisal) == pytest.approx(true, abs=0.05)


def test_surprise_that_says_nothing_is_not_heeded():
    rng = random.Random(4)
    outcomes = [
        Outcome(o.probability, o.first_is_better, rng.expovariate(2))
        for o in simulated(2000, 2.0, 0.3)
    ]
    assert fit_platt(outcomes).doubt <= 0.15


def test_one_pass_of_unknown_surprise_is_enough_to_heed_none():
    outcomes = doubting(500, 5.0)
    assert fit_platt(outcomes).doubt > 1
    outcomes[7] = Outcome(outcomes[7].probability, outcomes[7].first_is_better)
    assert (fit_platt(outcomes).doubt, fit_platt(outcomes).unknown) == (0, 0)


def test_where_the_surprise_is_unknown_the_judge_is_as_sure_as_it_is_right():
    outcomes = doubting(6000, 5.0)
    found, plain = fit_platt(outcomes), fit_platt(doubting(6000, 5.0, told=False))
    assert found.unknown > 0
    for logit in (-6.0, 6.0):
        assert found.apply(sigmoid(logit)) == pytest.approx(plain.apply(sigmoid(logit)), abs=0.03)


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
    turned = fit_platt(
        [Outcome(1 - o.probability, not o.first_is_better, o.surprisal) for o in outcomes]
    )
    assert turned.temperature == pytest.approx(found.temperature, rel=1e-2)
    assert turned.bias == pytest.approx(-found.bias, abs=1e-2)
