"""From the verdict token's log-probabilities to a probability that means something."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Depth = Literal["full", "verdict"]
"""``full``: after a written evaluation. ``verdict``: at once, with an empty evaluation."""

Order = Literal["given", "swapped"]
"""Which response the judge read first."""


class Platt(BaseModel):
    """Platt scaling, the less sure the more surprising the judge found its own words.

    ``(logit / temperature + bias) / (1 + doubt * surprisal)``. A verdict follows from what was
    written before it and is nearly always certain of that; whether what was written is right shows
    in how likely each of its words was. The surprisal changes no verdict.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999), for the numerator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature: float = Field(default=1.0, gt=0, description="above 1 makes the judge less sure")
    bias: float = Field(default=0.0, description="in nats, towards the response read first")
    doubt: float = Field(default=0.0, ge=0, description="what each nat of surprisal takes away")
    unknown: float = Field(
        default=0.0, ge=0, description="surprisal, in nats, where the judge wrote nothing"
    )

    def apply(self, probability: float, surprisal: float | None = None) -> float:
        """The calibrated probability; 0 and 1 stay 0 and 1.

        Args:
            probability: P(the response read first is better), as the judge gave it.
            surprisal: largest of the words it wrote before the verdict, in nats; None where it
                wrote none.
        """
        if self == _IDENTITY or probability in (0.0, 1.0):
            return probability
        logit = math.log(probability) - math.log1p(-probability)
        doubt = self.doubt * (self.unknown if surprisal is None else surprisal)
        return sigmoid((logit / self.temperature + self.bias) / (1.0 + doubt))


class OrderCalibration(BaseModel):
    """One depth's calibration, separately for each order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    given: Platt = Platt()
    swapped: Platt = Platt()


class Calibration(BaseModel):
    """A release's calibration per depth and order; the default changes nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    full: OrderCalibration = OrderCalibration()
    verdict: OrderCalibration = OrderCalibration()

    def at(self, depth: Depth, order: Order) -> Platt:
        """The scaling for one depth and order."""
        return getattr(getattr(self, depth), order)


_IDENTITY = Platt()


def sigmoid(logit: float) -> float:
    """``1 / (1 + e^-logit)`` without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))
