from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.calibration import Calibration, OrderCalibration, Platt, sigmoid

PROBABILITIES = st.floats(min_value=0, max_value=1)
TEMPERATURES = st.floats(min_value=0.01, max_value=100)
SURPRISALS = st.floats(min_value=0, max_value=1e6)
BIASES = st.floats(min_value=-20, max_value=20)


@given(PROBABILITIES)
@settings(deadline=None)
def test_without_calibration_a_probability_is_exactly_itself(probability):
    assert Platt().apply(probability) == probability


def test_a_temperature_of_two_halves_the_logit():
    assert Platt(temperature=2).apply(sigmoid(3.0)) == pytest.approx(sigmoid(1.5))


def test_the_bias_is_added_after_the_division():
    assert Platt(temperature=2, bias=0.25).apply(sigmoid(3.0)) == pytest.approx(sigmoid(1.75))


def test_one_half_moves_by_the_bias_alone():
    assert Platt(temperature=7, bias=1.0).apply(0.5) == pytest.approx(0.7310585786300049)


def test_surprise_divides_what_is_left():
    platt = Platt(temperature=2, bias=0.25, doubt=3)
    assert platt.apply(sigmoid(3.0), 0.0) == pytest.approx(sigmoid(1.75))
    assert platt.apply(sigmoid(3.0), 0.5) == pytest.approx(sigmoid(1.75 / 2.5))


@given(PROBABILITIES, st.lists(SURPRISALS, min_size=2, max_size=4), BIASES)
@settings(deadline=None)
def test_surprise_takes_from_the_sureness_and_changes_no_verdict(probability, surprisals, bias):
    platt = Platt(temperature=1.5, bias=bias, doubt=2)
    unsurprised = platt.apply(probability, 0.0)
    found = [platt.apply(probability, surprisal) for surprisal in sorted(surprisals)]
    assert all((p >= 0.5) == (unsurprised >= 0.5) for p in found)
    assert all(abs(less - 0.5) <= abs(more - 0.5) + 1e-12 for more, less in pairwise(found))


def test_who_wrote_nothing_is_as_sure_as_after_a_surprise_that_the_release_names():
    platt = Platt(doubt=3, unknown=0.5)
    assert platt.apply(0.9) == platt.apply(0.9, 0.5) != platt.apply(0.9, 0.0)


@given(TEMPERATURES, BIASES)
@settings(deadline=None)
def test_certainty_stays_certainty(temperature, bias):
    platt = Platt(temperature=temperature, bias=bias)
    assert platt.apply(0.0) == 0.0
    assert platt.apply(1.0) == 1.0


@given(st.lists(PROBABILITIES, min_size=2, max_size=6), TEMPERATURES, BIASES)
@settings(deadline=None)
def test_calibration_keeps_the_order_of_probabilities(probabilities, temperature, bias):
    platt = Platt(temperature=temperature, bias=bias)
    calibrated = [platt.apply(p) for p in sorted(probabilities)]
    assert all(0 <= p <= 1 for p in calibrated)
    assert all(low <= high + 1e-12 for low, high in pairwise(calibrated))


@given(st.floats(min_value=1e-6, max_value=1 - 1e-6), TEMPERATURES)
@settings(deadline=None)
def test_a_mirrored_probability_is_calibrated_to_the_mirror_of_its_calibration(p, temperature):
    platt = Platt(temperature=temperature)
    assert platt.apply(1 - p) == pytest.approx(1 - platt.apply(p), abs=1e-9)


@pytest.mark.parametrize("probability", [5e-324, 1e-300, 1 - 2**-53])
@pytest.mark.parametrize("temperature", [1e-300, 0.01, 1e300])
def test_extreme_values_do_not_overflow(probability, temperature):
    assert 0 <= Platt(temperature=temperature, bias=1).apply(probability) <= 1


@pytest.mark.parametrize(
    ("logit", "probability"),
    [
        (0.0, 0.5),
        (math.log(3), 0.75),
        (-math.log(3), 0.25),
        (1e6, 1.0),
        (-1e6, 0.0),
        (math.inf, 1.0),
        (-math.inf, 0.0),
    ],
)
def test_the_sigmoid_of_known_logits(logit, probability):
    assert sigmoid(logit) == pytest.approx(probability, abs=1e-15)


def test_each_depth_and_order_has_its_own_scaling():
    calibration = Calibration(
        full=OrderCalibration(given=Platt(bias=1), swapped=Platt(bias=2)),
        verdict=OrderCalibration(given=Platt(bias=3), swapped=Platt(bias=4)),
    )
    places = product(("full", "verdict"), ("given", "swapped"))
    assert [calibration.at(depth, order).bias for depth, order in places] == [1, 2, 3, 4]


def test_the_default_calibration_changes_nothing():
    for depth, order in product(("full", "verdict"), ("given", "swapped")):
        assert Calibration().at(depth, order) == Platt(temperature=1, bias=0)


@pytest.mark.parametrize(
    "config",
    [
        {"full": {"given": {"temperature": 0}}},
        {"full": {"given": {"temperature": -1}}},
        {"full": {"given": {"temperature": "warm"}}},
        {"full": {"given": {"slope": 2}}},
        {"full": {"given": {"doubt": -0.1}}},
        {"full": {"given": {"unknown": -0.1}}},
        {"full": {"both": {}}},
        {"quick": {}},
    ],
)
def test_a_calibration_that_makes_no_sense_is_refused(config):
    with pytest.raises(ValidationError):
        Calibration.model_validate(config)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["temperature", "bias", "doubt", "unknown"])
def test_a_calibration_that_is_not_finite_is_refused(field, value):
    with pytest.raises(ValidationError, match=field):
        Platt.model_validate({field: value})
