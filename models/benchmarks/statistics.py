"""Figures about judgements: shares with intervals, and whether confidence means something."""

from __future__ import annotations

import math
from collections.abc import Sequence


def wilson_interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share, 95% by default; (0, 1) of nothing.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference"
    (1927).
    """
    if n == 0:
        return 0.0, 1.0
    share = right / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def mean_interval(values: Sequence[float], z: float = 1.96) -> tuple[float, float, float]:
    """A mean and its normal interval, 95% by default; of one value or more."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    spread = z * math.sqrt(variance / len(values))
    return mean, mean - spread, mean + spread


def expected_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], bins: int = 15
) -> float | None:
    """Mean distance of confidence and accuracy over bins of equal width, weighed by their size.

    None of nothing.

    Args:
        confidences: probability of the verdict that was given, 0.5..1.
        right: whether it was right.
        bins: over 0.5..1, where a forced choice's confidence lies.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
    """
    if not confidences and not right:
        return None
    filled: dict[int, list[tuple[float, bool]]] = {}
    for confidence, was_right in zip(confidences, right, strict=True):
        place = min(bins - 1, int((confidence - 0.5) * 2 * bins))
        filled.setdefault(place, []).append((confidence, was_right))
    return sum(
        abs(sum(c for c, _ in members) - sum(r for _, r in members)) for members in filled.values()
    ) / len(confidences)


def auroc(confidences: Sequence[float], right: Sequence[bool]) -> float | None:
    """How often a right verdict is surer than a wrong one, ties half; None without both kinds.

    Source: the Mann-Whitney statistic; Hanley and McNeil (1982).
    """
    positives = sum(right)
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    order = sorted(range(len(right)), key=confidences.__getitem__)
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and confidences[order[end]] == confidences[order[start]]:
            end += 1
        rank = (start + end + 1) / 2  # ranks count from 1; equal confidences share their mean
        rank_sum += rank * sum(right[i] for i in order[start:end])
        start = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def accuracy_at_coverage(
    confidences: Sequence[float], right: Sequence[bool], coverage: float = 0.8
) -> float | None:
    """Accuracy on the surest share; cases as sure as the last one count by their mean."""
    keep = round(coverage * len(right))
    if keep == 0:
        return None
    order = sorted(range(len(right)), key=lambda i: -confidences[i])
    edge = confidences[order[keep - 1]]
    above = [i for i in order if confidences[i] > edge]
    tied = [i for i in order if confidences[i] == edge]
    at_edge = (keep - len(above)) * sum(right[i] for i in tied) / len(tied)
    return (sum(right[i] for i in above) + at_edge) / keep
