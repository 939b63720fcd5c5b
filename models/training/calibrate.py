"""Calibration: making a judge's probabilities mean what they say, per depth and order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.benchmarks.statistics import expected_calibration_error
from models.benchmarks.toyworld import Judged
from models.calibration import Order, OrderCalibration, Platt, sigmoid
from models.comparison import Position, other

_LONGEST_LOGIT = 16.0
"""A probability of exactly 0 or 1 is a rounding of something like this."""


_SMALLEST_SLOPE = 1e-3
"""A judge whose logits say nothing, or the opposite, is left with its bias."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One pass: P(the response read first) as the judge gave it, and whether that was the better.

    Attributes:
        probability: 0..1, before calibration.
        first_is_better: the truth.
    """

    probability: float
    first_is_better: bool


def fit_platt(outcomes: Sequence[Outcome], prior: float = 1.0) -> Platt:
    """The scaling with the highest likelihood, by Newton's method.

    Args:
        outcomes: of passes with equal depth and order.
        prior: how many outcomes' worth of belief that nothing has to be changed; it keeps the
            fit finite where the verdicts are all right.

    Source: Platt (1999), with his smoothed targets; Lin, Lin and Weng, "A Note on Platt's
    Probabilistic Outputs" (2007).
    """
    if not outcomes:
        return Platt()
    logits = [_logit(o.probability) for o in outcomes]
    positives = sum(o.first_is_better for o in outcomes)
    high = (positives + 1) / (positives + 2)
    low = 1 / (len(outcomes) - positives + 2)
    targets = [high if o.first_is_better else low for o in outcomes]
    slope, bias = 1.0, 0.0
    for _ in range(100):
        step_slope, step_bias = _newton_step(logits, targets, slope, bias, prior)
        if slope - step_slope < _SMALLEST_SLOPE:  # halfway to the bound; the bias moves by itself
            step_slope = (slope - _SMALLEST_SLOPE) / 2
            step_bias = _bias_step(logits, targets, slope, bias, prior)
        slope, bias = slope - step_slope, bias - step_bias
        if abs(step_slope) + abs(step_bias) < 1e-9:
            break
    return Platt(temperature=round(1 / slope, 4), bias=round(bias, 4))


def _bias_step(
    logits: Sequence[float], targets: Sequence[float], slope: float, bias: float, prior: float
) -> float:
    found = [sigmoid(slope * logit + bias) for logit in logits]
    gradient = prior * bias + sum(f - t for f, t in zip(found, targets, strict=True))
    curve = prior + sum(f * (1 - f) for f in found)
    return max(-1.0, min(1.0, gradient / curve))


def _newton_step(
    logits: Sequence[float], targets: Sequence[float], slope: float, bias: float, prior: float
) -> tuple[float, float]:
    gradient_slope, gradient_bias = prior * (slope - 1.0), prior * bias
    curve_slope, curve_bias, curve_both = prior, prior, 0.0
    for logit, target in zip(logits, targets, strict=True):
        found = sigmoid(slope * logit + bias)
        weight = found * (1 - found)
        gradient_slope += (found - target) * logit
        gradient_bias += found - target
        curve_slope += weight * logit * logit
        curve_bias += weight
        curve_both += weight * logit
    determinant = curve_slope * curve_bias - curve_both * curve_both
    step_slope = (curve_bias * gradient_slope - curve_both * gradient_bias) / determinant
    step_bias = (curve_slope * gradient_bias - curve_both * gradient_slope) / determinant
    largest = max(1.0, abs(step_slope), abs(step_bias))  # never more than one at a time
    return step_slope / largest, step_bias / largest


def outcomes_of(judged: Sequence[Judged], order: Order) -> list[Outcome]:
    """The readable passes in one order, each seen from the response that was read first."""
    found: list[Outcome] = []
    for one in judged:
        for verdict in one.judgement.verdicts:
            if verdict.order != order or verdict.probability is None:
                continue
            label: Position = one.case.label
            if order == "given":
                found.append(Outcome(verdict.probability, label == 1))
            else:  # the service mirrors what was read swapped
                found.append(Outcome(1 - verdict.probability, other(label) == 1))
    return found


def calibrate_depth(judged: Sequence[Judged]) -> tuple[OrderCalibration, dict[str, Any]]:
    """Fits both orders of one depth on labeled cases judged in both orders, uncalibrated.

    Returns:
        The scalings, fitted to every second pass, and for each order the expected
        calibration error of the other passes before and after.
    """
    fitted: dict[Order, Platt] = {}
    report: dict[str, Any] = {}
    for order in ("given", "swapped"):
        outcomes = outcomes_of(judged, order)
        fitted[order] = platt = fit_platt(outcomes[::2])
        outcomes = outcomes[1::2]  # reported on what it was not fitted to
        report[order] = {
            "passes": len(outcomes),
            "ece_before": _ece(outcomes, Platt()),
            "ece_after": _ece(outcomes, platt),
        }
    return OrderCalibration(given=fitted["given"], swapped=fitted["swapped"]), report


def _ece(outcomes: Sequence[Outcome], platt: Platt) -> float | None:
    found = [platt.apply(o.probability) for o in outcomes]
    sure = [max(p, 1 - p) for p in found]
    right = [(p >= 0.5) == o.first_is_better for p, o in zip(found, outcomes, strict=True)]
    error = expected_calibration_error(sure, right)
    return None if error is None else round(error, 4)


def _logit(probability: float) -> float:
    if probability <= 0.0:
        return -_LONGEST_LOGIT
    if probability >= 1.0:
        return _LONGEST_LOGIT
    logit = math.log(probability) - math.log1p(-probability)
    return max(-_LONGEST_LOGIT, min(_LONGEST_LOGIT, logit))
