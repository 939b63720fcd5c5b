"""How strong each of N responses is, from comparisons of two: Bradley-Terry.

P(i is better than j) = sigmoid(strength i - strength j). A judge's probability counts as that share
of a win. A Gaussian prior keeps what has never lost finite, and the curvature at the maximum says
how much is still unknown (Laplace approximation).

Source: Bradley and Terry, "Rank Analysis of Incomplete Block Designs" (1952).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.calibration import sigmoid

Floats = NDArray[np.float64]

PRIOR_SD = 6.0
"""Of a strength, in nats. Wide: a narrow one takes back what is concluded from who beat whom, where
only a part of the pairs has met."""

_STEPS = 50
_SMALL = 1e-9


@dataclass(frozen=True, slots=True)
class Outcome:
    """One comparison: P(`first` is better than `second`)."""

    first: int
    second: int
    probability: float


@dataclass(frozen=True, slots=True)
class Strengths:
    """What is known about N strengths, in nats; their mean is 0.

    Attributes:
        mean_N: the likeliest strengths, shape (N,).
        covariance_NN: how sure that is, shape (N, N).
    """

    mean_N: Floats
    covariance_NN: Floats

    def of(self, places_M: NDArray[np.int64]) -> Strengths:
        """The strengths at these places, any of them more than once; centred again."""
        mean_M: Floats = self.mean_N[places_M]
        centred_M = mean_M - mean_M.sum() / max(1, len(mean_M))
        return Strengths(centred_M, self.covariance_NN[np.ix_(places_M, places_M)])

    def among(self, number: int, places_M: NDArray[np.int64]) -> Strengths:
        """These M as the ones at `places_M` among `number`; nothing (NaN) is known of the rest."""
        covariance_NN = np.full((number, number), np.nan)
        covariance_NN[np.ix_(places_M, places_M)] = self.covariance_NN
        return Strengths(spread(self.mean_N, number, places_M), covariance_NN)

    def once_compared(self, first: int, second: int) -> Strengths:
        """How sure they would be after one more comparison; its outcome is as yet unknown."""
        mean = float(self.mean_N[first] - self.mean_N[second])
        change_N = self.covariance_NN[:, first] - self.covariance_NN[:, second]
        variance = max(float(change_N[first] - change_N[second]), 0.0)
        likely = sigmoid(mean / math.sqrt(1 + math.pi / 8 * variance))
        weight = likely * (1 - likely)
        told_NN = weight / (1 + weight * variance) * np.outer(change_N, change_N)
        return Strengths(self.mean_N, self.covariance_NN - told_NN)

    @property
    def interval_N2(self) -> Floats:
        """95% intervals, shape (N, 2)."""
        spread_N = 1.96 * np.sqrt(np.diag(self.covariance_NN))
        return np.stack([self.mean_N - spread_N, self.mean_N + spread_N], axis=1)

    @property
    def differences_NN(self) -> tuple[Floats, Floats]:
        """Mean and variance of strength i - strength j, each of shape (N, N)."""
        variance_N = np.diag(self.covariance_NN)
        variance_NN = variance_N[:, None] + variance_N[None] - 2 * self.covariance_NN
        return self.mean_N[:, None] - self.mean_N[None], np.maximum(variance_NN, 0.0)

    @property
    def better_NN(self) -> Floats:
        """P(i is better than j), shape (N, N), strengths being as unsure as they are."""
        mean_NN, variance_NN = self.differences_NN
        # The probit approximation of a logistic averaged over a Gaussian (MacKay 1992).
        return _sigmoid(mean_NN / np.sqrt(1 + np.pi / 8 * variance_NN))


def spread(values_M: Floats, number: int, places_M: NDArray[np.int64]) -> Floats:
    """These M values at `places_M` among `number`, NaN everywhere else."""
    spread_N = np.full(number, np.nan)
    spread_N[places_M] = values_M
    return spread_N


def fit(number: int, outcomes: Sequence[Outcome], prior_sd: float = PRIOR_SD) -> Strengths:
    """The strengths that explain the outcomes best.

    Args:
        number: how many responses there are; those never compared stay at the prior.
        outcomes: in any order; the same pair may come again.
        prior_sd: in nats.
    """
    first = np.array([outcome.first for outcome in outcomes], dtype=np.int64)
    second = np.array([outcome.second for outcome in outcomes], dtype=np.int64)
    wins = np.array([outcome.probability for outcome in outcomes], dtype=np.float64)
    mean_N = np.zeros(number)
    precision_NN = np.eye(number) / prior_sd**2
    for _ in range(_STEPS):
        likely = _sigmoid(mean_N[first] - mean_N[second])
        gradient_N = -mean_N / prior_sd**2
        np.add.at(gradient_N, first, wins - likely)
        np.add.at(gradient_N, second, likely - wins)
        precision_NN = np.eye(number) / prior_sd**2 + _curvature(number, first, second, likely)
        step_N = np.linalg.solve(precision_NN, gradient_N)
        # A Newton step overshoots where nearly everything is certain.
        mean_N = mean_N + step_N * min(1.0, 2.0 / max(_SMALL, float(np.abs(step_N).max())))
        if np.abs(step_N).max() < _SMALL:
            break
    covariance_NN: Floats = np.linalg.inv(precision_NN).astype(np.float64)
    return Strengths(mean_N - mean_N.mean(), covariance_NN)


def _curvature(
    number: int, first: NDArray[np.int64], second: NDArray[np.int64], likely: Floats
) -> Floats:
    curvature_NN = np.zeros((number, number))
    weight = likely * (1 - likely)
    for places, sign in (((first, first), 1), ((second, second), 1), ((first, second), -1)):
        np.add.at(curvature_NN, places, sign * weight)
    np.add.at(curvature_NN, (second, first), -weight)
    return curvature_NN


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * x))
