"""Fitting Platt scalings, and how much a judge's surprise at its own words takes from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.calibration import Platt, sigmoid

_LONGEST_LOGIT = 16.0
"""A probability of exactly 0 or 1 is a rounding of something like this."""


_SMALLEST_SLOPE = 1e-3
"""A judge whose logits say nothing, or the opposite, is left with its bias."""

_DOUBTS = (0.0, *(2.0 ** (n / 2) for n in range(-6, 17)))
_SURPRISALS = (0.0, *(2.0 ** (n / 2) for n in range(-24, 9)))
"""What is tried, per nat and in nats; the likelihood hardly changes from one to the next."""
_WORTH = 3.0
"""Nats of likelihood that a doubt has to gain over none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One pass: P(the response read first) as the judge gave it, and whether that was the better.

    Attributes:
        probability: 0..1, before calibration.
        first_is_better: the truth.
        surprisal: the largest of the judge's own words, in nats, where it wrote any.
    """

    probability: float
    first_is_better: bool
    surprisal: float | None = None


def fit_platt(outcomes: Sequence[Outcome], prior: float = 1.0) -> Platt:
    """The scaling with the highest likelihood.

    Temperature and bias by Newton's method for each of some doubts; then the surprisal that fits
    best where none is known.

    Args:
        outcomes: of passes with equal depth and order.
        prior: how many outcomes' worth of belief that nothing has to be changed; it keeps the
            fit finite where the verdicts are all right.

    Source: Platt (1999), with his smoothed targets; Lin, Lin and Weng, "A Note on Platt's
    Probabilistic Outputs" (2007).
    """
    if not outcomes:
        return Platt()
    # Not to be told apart from a judge that is never surprised: its doubt would mean nothing.
    doubts = _DOUBTS if all(o.surprisal is not None for o in outcomes) else (0.0,)
    found = [_fit(outcomes, prior, doubt) for doubt in doubts]
    best = min(found, key=lambda fit: fit.loss + _WORTH * (fit.doubt > 0))
    if best.doubt == 0:
        return best.platt()
    losses = {s: best.loss_if_all_were(s, outcomes) for s in _SURPRISALS}
    return best.platt(unknown=min(losses, key=losses.__getitem__))


@dataclass(frozen=True, slots=True)
class _Fit:
    """Slope and bias for one doubt, and the negative log-likelihood in nats, prior included."""

    slope: float
    bias: float
    doubt: float
    loss: float

    def platt(self, unknown: float = 0.0) -> Platt:
        return Platt(
            temperature=round(1 / self.slope, 4),
            bias=round(self.bias, 4),
            doubt=round(self.doubt, 4),
            unknown=round(unknown, 6),
        )

    def loss_if_all_were(self, surprisal: float, outcomes: Sequence[Outcome]) -> float:
        """Without the prior."""
        scale = 1 / (1 + self.doubt * surprisal)
        logits = [scale * (self.slope * _logit(o.probability) + self.bias) for o in outcomes]
        return _loss(logits, _targets(outcomes))


def _fit(outcomes: Sequence[Outcome], prior: float, doubt: float) -> _Fit:
    scales = [1 / (1 + doubt * (o.surprisal or 0.0)) for o in outcomes]
    logits = [scale * _logit(o.probability) for scale, o in zip(scales, outcomes, strict=True)]
    seen = _Seen(logits, scales, _targets(outcomes), prior)
    slope, bias = 1.0, 0.0
    for _ in range(100):
        step_slope, step_bias = _newton_step(seen, slope, bias)
        if slope - step_slope < _SMALLEST_SLOPE:  # halfway to the bound; the bias moves by itself
            step_slope = (slope - _SMALLEST_SLOPE) / 2
            step_bias = _bias_step(seen, slope, bias)
        slope, bias = slope - step_slope, bias - step_bias
        if abs(step_slope) + abs(step_bias) < 1e-9:
            break
    found = [slope * x + bias * s for x, s in zip(logits, scales, strict=True)]
    belief = prior * ((slope - 1.0) ** 2 + bias**2) / 2
    return _Fit(slope, bias, doubt, _loss(found, seen.targets) + belief)


@dataclass(frozen=True, slots=True)
class _Seen:
    """Logits and what goes with the bias, both scaled by doubt; the smoothed truth; the prior."""

    logits: list[float]
    scales: list[float]
    targets: list[float]
    prior: float


def _targets(outcomes: Sequence[Outcome]) -> list[float]:
    positives = sum(o.first_is_better for o in outcomes)
    high = (positives + 1) / (positives + 2)
    low = 1 / (len(outcomes) - positives + 2)
    return [high if o.first_is_better else low for o in outcomes]


def _loss(logits: Sequence[float], targets: Sequence[float]) -> float:
    return math.fsum(
        max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))
        for logit, target in zip(logits, targets, strict=True)
    )


def _bias_step(seen: _Seen, slope: float, bias: float) -> float:
    gradient, curve = seen.prior * bias, seen.prior
    for logit, scale, target in zip(seen.logits, seen.scales, seen.targets, strict=True):
        found = sigmoid(slope * logit + bias * scale)
        gradient += (found - target) * scale
        curve += found * (1 - found) * scale * scale
    return max(-1.0, min(1.0, gradient / curve))


def _newton_step(seen: _Seen, slope: float, bias: float) -> tuple[float, float]:
    gradient_slope, gradient_bias = seen.prior * (slope - 1.0), seen.prior * bias
    curve_slope, curve_bias, curve_both = seen.prior, seen.prior, 0.0
    for logit, scale, target in zip(seen.logits, seen.scales, seen.targets, strict=True):
        found = sigmoid(slope * logit + bias * scale)
        weight = found * (1 - found)
        gradient_slope += (found - target) * logit
        gradient_bias += (found - target) * scale
        curve_slope += weight * logit * logit
        curve_bias += weight * scale * scale
        curve_both += weight * logit * scale
    determinant = curve_slope * curve_bias - curve_both * curve_both
    step_slope = (curve_bias * gradient_slope - curve_both * gradient_bias) / determinant
    step_bias = (curve_slope * gradient_bias - curve_both * gradient_slope) / determinant
    largest = max(1.0, abs(step_slope), abs(step_bias))  # never more than one at a time
    return step_slope / largest, step_bias / largest


def _logit(probability: float) -> float:
    if probability <= 0.0:
        return -_LONGEST_LOGIT
    if probability >= 1.0:
        return _LONGEST_LOGIT
    logit = math.log(probability) - math.log1p(-probability)
    return max(-_LONGEST_LOGIT, min(_LONGEST_LOGIT, logit))
