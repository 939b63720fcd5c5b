"""What a run must have reached, and whether it has."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from loadtests.arrivals import Answered

Figure = Literal[
    "requests",
    "goodput",
    "ok_share",
    "failed",
    "ok_p50_s",
    "ok_p99_s",
    "refused_p99_s",
    "late_share",
    "sent_late_p99_s",
]

_LATE = "deadline_exceeded"


class Bound(BaseModel):
    """What a figure must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("an objective has at_least or at_most")
        return self

    def holds(self, found: float) -> bool:
        """Whether a figure is inside; what is not a number is not."""
        return (self.at_least is None or found >= self.at_least) and (
            self.at_most is None or found <= self.at_most
        )

    def __str__(self) -> str:
        bounds = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return " and ".join(bounds)


class Objective(Bound):
    """A bound on one figure of a run."""

    figure: Figure = Field(
        description="requests, failed: counts; goodput: ok a second; …_s: seconds; late_share: "
        "those let in whose time was over, of them and the ok ones; sent_late_p99_s: how far "
        "behind its plan the run was, which is no fault of what it measures"
    )

    def met(self, figures: dict[Figure, float]) -> bool:
        """Whether a run has reached it; a figure that nothing was measured for is not reached."""
        return self.holds(figures[self.figure])


class Objectives(BaseModel):
    """All that a run is held to; one that is missed fails it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Annotated[tuple[Objective, ...], Field(min_length=1)]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Objectives in a TOML file, as ``[[objective]]`` tables."""
        return cls.model_validate(tomllib.loads(path.read_text()))


def figures_of(answers: Sequence[Answered], seconds: float) -> dict[Figure, float]:
    """What was measured; a quantile of nothing is not a number, which meets no objective.

    Args:
        answers: of all requests, those that failed included.
        seconds: for how long they were sent.
    """
    ok = [answer.seconds for answer in answers if answer.outcome == "ok"]
    late = sum(answer.code == _LATE for answer in answers)
    refused = [
        answer.seconds
        for answer in answers
        if answer.outcome == "refused" and answer.code != _LATE  # that was let in
    ]
    return {
        "requests": len(answers),
        "goodput": len(ok) / seconds,
        "ok_share": len(ok) / len(answers) if answers else math.nan,
        "failed": sum(answer.outcome == "failed" for answer in answers),
        "ok_p50_s": quantile(ok, 0.5),
        "ok_p99_s": quantile(ok, 0.99),
        "refused_p99_s": quantile(refused, 0.99),
        "late_share": late / (len(ok) + late) if ok else math.nan,
        "sent_late_p99_s": quantile([answer.late_s for answer in answers], 0.99),
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
