"""What is known of a run."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from models.release import Release
from service.api.schemas.parts import Answer, ReleaseOut
from service.runs import RunRates


class RateOut(Answer):
    """A share of `n`; null of nothing."""

    n: int
    rate: float | None


class ImageRelianceOut(Answer):
    """What became of the judgements that were made again with the images blanked."""

    n: int
    changed: RateOut = Field(description="verdicts that became another, where one could be read")
    mean_shift: float | None = Field(description="mean |P(with the images) - P(without)|")
    abstained: int


class RunAnswer(Answer):
    """A run's monitors, over its judgements by this release."""

    id: str
    judgements: int = Field(description="each comparison of a ranking is one")
    abstained: RateOut
    abstentions: dict[str, int] = Field(description="by reason")
    injection_attempts: RateOut = Field(
        description="judgements with candidate text that tried to act as more than text"
    )
    first_position: RateOut = Field(description="passes that prefer what they read first")
    longer_wins: RateOut = Field(description="verdicts for the longer response")
    longer_wins_baseline: RateOut = Field(
        description="the same of everything else that this release has judged"
    )
    image_reliance: ImageRelianceOut | None = Field(description="null while nothing was probed")
    release: ReleaseOut

    @classmethod
    def of(cls, found: RunRates, run_id: str, release: Release) -> Self:
        """The run on the wire."""
        reliance = found.image_reliance
        return cls(
            id=run_id,
            judgements=found.judgements,
            abstained=RateOut.model_validate(found.abstained),
            abstentions=found.abstentions,
            injection_attempts=RateOut.model_validate(found.injection_attempts),
            first_position=RateOut.model_validate(found.first_position),
            longer_wins=RateOut.model_validate(found.longer_wins),
            longer_wins_baseline=RateOut.model_validate(found.longer_wins_baseline),
            image_reliance=None if reliance is None else ImageRelianceOut.model_validate(reliance),
            release=ReleaseOut.of(release),
        )
