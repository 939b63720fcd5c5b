from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.benchmarks.statistics import (
    accuracy_at_coverage,
    auroc,
    expected_calibration_error,
    mean_interval,
    wilson_interval,
)

# Few different confidences, so that many are equal.
CONFIDENCE = st.sampled_from([0.5, 0.55, 0.7, 0.7000001, 0.9, 1.0]) | st.floats(0.5, 1.0)
VERDICTS = st.lists(st.tuples(CONFIDENCE, st.booleans()), min_size=1, max_size=30)


def columns(verdicts):
    confidences, right = zip(*verdicts, strict=True)
    return list(confidences), list(right)


# A mean's interval


def test_a_mean_s_interval_is_that_of_the_normal_distribution():
    mean, low, high = mean_interval([1, 0, 0, -1, 1, 0, 0, 1, 1, 0])
    assert mean == pytest.approx(0.3)
    assert (low, high) == pytest.approx((0.3 - 0.3967, 0.3 + 0.3967), abs=1e-3)


def test_values_that_agree_leave_no_doubt_of_their_mean():
    assert mean_interval([2.0] * 5) == (2.0, 2.0, 2.0)


# Wilson's interval


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (50, 100, 0.4038, 0.5962),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_interval_is_wilsons(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=1e-4)


def test_a_smaller_z_gives_a_narrower_interval():
    assert wilson_interval(8, 10, z=0) == pytest.approx((0.8, 0.8))
    low, high = wilson_interval(8, 10, z=1)
    assert 0.4902 < low < 0.8 < high < 0.9433


@settings(deadline=None)
@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_lies_in_0_to_1_around_its_share(right_n):
    right, n = right_n
    low, high = wilson_interval(right, n)
    assert -1e-12 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1 + 1e-12
    assert low < high
    mirrored_low, mirrored_high = wilson_interval(n - right, n)
    assert (1 - high, 1 - low) == pytest.approx((mirrored_low, mirrored_high), abs=1e-9)


# Expected calibration error


def test_a_judge_that_is_right_as_often_as_it_says_has_no_calibration_error():
    confidences = [0.55] * 20 + [0.75] * 20 + [0.95] * 20 + [1.0] * 5
    right = [k < 11 for k in range(20)] + [k < 15 for k in range(20)] + [k < 19 for k in range(20)]
    assert expected_calibration_error(confidences, [*right, *[True] * 5]) == pytest.approx(0)


def test_a_judge_that_is_sure_and_half_right_errs_by_the_difference():
    right = [k % 2 == 0 for k in range(10)]
    assert expected_calibration_error([0.99] * 10, right) == pytest.approx(0.49)


def test_bins_count_by_their_size_and_do_not_cancel_out():
    # 4 at 0.9 with 3 right: 0.15 apart. 6 at 0.6 with 5 right: 0.2333 apart, the other way.
    confidences = [0.9] * 4 + [0.6] * 6
    right = [True] * 3 + [False] + [True] * 5 + [False]
    expected = (4 * 0.15 + 6 * (5 / 6 - 0.6)) / 10
    assert expected_calibration_error(confidences, right) == pytest.approx(expected)


def test_with_one_bin_only_the_means_are_compared():
    assert expected_calibration_error([0.6, 1.0], [True, False], bins=1) == pytest.approx(0.3)
    assert expected_calibration_error([0.6, 1.0], [True, False], bins=2) == pytest.approx(0.7)


def test_of_nothing_there_is_no_calibration_error():
    assert expected_calibration_error([], []) is None


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        expected_calibration_error([0.7], [True, False])


@settings(deadline=None)
@given(VERDICTS, st.integers(1, 20))
def test_the_calibration_error_lies_between_its_coarsest_and_its_finest(verdicts, bins):
    confidences, right = columns(verdicts)
    coarsest = abs(sum(confidences) - sum(right)) / len(right)
    finest = sum(abs(c - r) for c, r in verdicts) / len(right)
    found = expected_calibration_error(confidences, right, bins)
    assert coarsest - 1e-9 <= found <= finest + 1e-9


# Area under the ROC curve


@pytest.mark.parametrize(
    ("confidences", "right", "expected"),
    [
        ([0.9, 0.8, 0.6, 0.5], [True, True, False, False], 1.0),
        ([0.5, 0.6, 0.8, 0.9], [True, True, False, False], 0.0),
        ([0.7, 0.7, 0.7, 0.7], [True, True, False, False], 0.5),
        ([0.9, 0.6, 0.6], [False, True, False], 0.25),
    ],
)
def test_auroc_by_hand(confidences, right, expected):
    assert auroc(confidences, right) == pytest.approx(expected)


@pytest.mark.parametrize("right", [[], [True], [False], [True, True], [False, False, False]])
def test_without_both_kinds_there_is_no_auroc(right):
    assert auroc([0.7] * len(right), right) is None


@settings(deadline=None)
@given(VERDICTS)
def test_auroc_counts_pairs_and_equal_ones_half(verdicts):
    confidences, right = columns(verdicts)
    surer = [c for c, r in verdicts if r]
    less = [c for c, r in verdicts if not r]
    if not surer or not less:
        assert auroc(confidences, right) is None
        return
    won = sum((a > b) + 0.5 * (a == b) for a, b in itertools.product(surer, less))
    assert auroc(confidences, right) == pytest.approx(won / len(surer) / len(less))


# Accuracy at coverage


def test_the_surest_share_alone_counts():
    confidences, right = [0.9, 0.6, 0.8, 0.7, 0.5], [True, False, True, False, True]
    assert accuracy_at_coverage(confidences, right, 0.4) == 1.0
    assert accuracy_at_coverage(confidences, right, 0.8) == 0.5
    assert accuracy_at_coverage(confidences, right, 1.0) == pytest.approx(0.6)


def test_equally_sure_ones_at_the_edge_count_by_their_mean():
    # Two of the three at 0.7 are kept, whichever they are: two thirds of them are right.
    confidences, right = [0.9, 0.7, 0.7, 0.7, 0.5], [False, True, True, False, True]
    assert accuracy_at_coverage(confidences, right, 0.6) == pytest.approx((0 + 2 * 2 / 3) / 3)


def test_where_nothing_is_kept_there_is_no_accuracy():
    assert accuracy_at_coverage([], []) is None
    assert accuracy_at_coverage([0.9, 0.8], [True, True], 0.1) is None


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=5),
    st.sampled_from([0.2, 0.5, 0.8, 1.0]),
)
def test_it_is_the_mean_over_all_ways_to_order_equal_ones(verdicts, coverage):
    keep = round(coverage * len(verdicts))
    kept = [
        sum(right for _, right in sorted(order, key=lambda verdict: -verdict[0])[:keep])
        for order in itertools.permutations(verdicts)
    ]
    found = accuracy_at_coverage(*columns(verdicts), coverage)
    if keep == 0:
        assert found is None
    else:
        assert found == pytest.approx(sum(kept) / len(kept) / keep)
