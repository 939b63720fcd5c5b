from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.judging.strengths import Outcome, fit

outcomes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0, 1)).filter(lambda o: o[0] != o[1]),
    max_size=40,
).map(lambda found: [Outcome(*one) for one in found])


def test_nothing_is_known_before_anything_is_compared():
    found = fit(3, [], prior_sd=2.0)
    assert found.mean_N.tolist() == [0, 0, 0]
    assert found.covariance_NN == pytest.approx(np.eye(3) * 4)
    assert found.better_NN == pytest.approx(np.full((3, 3), 0.5))


def test_strengths_that_made_the_outcomes_are_found_again():
    rng = random.Random(0)
    true = [1.5, 0.5, -0.5, -1.5]
    seen = [
        Outcome(i, j, float(rng.random() < 1 / (1 + math.exp(true[j] - true[i]))))
        for i in range(4)
        for j in range(4)
        if i != j
        for _ in range(400)
    ]
    found = fit(4, seen)
    assert found.mean_N == pytest.approx(true, abs=0.25)
    low, high = found.interval_N2.T
    assert (low < true).all()
    assert (true < high).all()


def test_a_probability_is_a_share_of_a_win():
    half = fit(2, [Outcome(0, 1, 0.7)] * 10)
    counted = fit(2, [Outcome(0, 1, 1.0)] * 7 + [Outcome(0, 1, 0.0)] * 3)
    assert half.mean_N == pytest.approx(counted.mean_N, abs=1e-6)


def test_what_has_never_lost_stays_finite():
    found = fit(2, [Outcome(0, 1, 1.0)] * 1000)
    assert np.isfinite(found.mean_N).all()
    assert 0.98 < found.better_NN[0, 1] < 1


def test_a_comparison_tells_of_both_and_of_nobody_else():
    before, after = fit(3, []), fit(3, [Outcome(0, 1, 0.5)])
    _, unsure_before = before.differences_NN
    _, unsure_after = after.differences_NN
    assert unsure_after[0, 1] < unsure_before[0, 1]
    assert after.covariance_NN[2, 2] == pytest.approx(before.covariance_NN[2, 2])


def test_one_more_comparison_is_foreseen_but_for_its_outcome():
    before = fit(3, [Outcome(0, 1, 0.5), Outcome(1, 2, 0.5)])
    foreseen = before.once_compared(0, 2)
    known = fit(3, [Outcome(0, 1, 0.5), Outcome(1, 2, 0.5), Outcome(0, 2, 0.5)])
    assert foreseen.mean_N.tolist() == before.mean_N.tolist()
    unsure = [strengths.differences_NN[1] for strengths in (before, foreseen, known)]
    assert unsure[0][0, 2] > unsure[1][0, 2] > 0
    assert unsure[1][0, 2] == pytest.approx(unsure[2][0, 2], rel=0.5)
    assert (np.linalg.eigvalsh(foreseen.covariance_NN) > 0).all()


@given(outcomes)
def test_the_same_comparisons_read_backwards_say_the_same(seen):
    turned = [Outcome(one.second, one.first, 1 - one.probability) for one in reversed(seen)]
    assert fit(5, seen).mean_N == pytest.approx(fit(5, turned).mean_N, abs=1e-6)


@given(outcomes)
def test_strengths_are_centred_and_pairs_add_up(seen):
    found = fit(5, seen)
    assert found.mean_N.sum() == pytest.approx(0, abs=1e-9)
    assert found.better_NN + found.better_NN.T == pytest.approx(np.ones((5, 5)))
    assert (np.linalg.eigvalsh(found.covariance_NN) > 0).all()
