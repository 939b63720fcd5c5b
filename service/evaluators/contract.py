"""The contract between those who ask for an opinion on a rubric and those who have one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from models.comparison import Comparison, Position
from models.rubric import Rubric
from service.engines import Priority
from service.judging import AbstentionReason, Usage

OpinionStatus = Literal["ok", "abstain", "timeout", "unavailable"]
"""The last two are for who asks several evaluators and goes on without one of them."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What an evaluator makes of a comparison, guided by a rubric.

    Attributes:
        reason: why it abstains.
        preferred: None unless the status is ``ok``.
        probability: calibrated P(response 1 is better by the rubric).
        label_mass: share of the verdict token's probability that lies on the two labels.
    """

    status: OpinionStatus
    reason: AbstentionReason | None
    preferred: Position | None
    probability: float | None
    latency_s: float
    usage: Usage
    label_mass: float | None = None
    injection_attempts: int = 0


class Evaluator(ABC):
    """Judges a comparison by a rubric that it is given, and by nothing else."""

    @abstractmethod
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        """Reads the responses in the given order; cancelling the call stops the work.

        An output that cannot be read is an abstention, never a verdict.

        Raises:
            EngineUnavailable: it cannot be asked now.
            ContextExceeded: comparison and rubric do not fit it.
        """
