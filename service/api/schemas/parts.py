"""What answers are made of.

They are read off the service's own objects, whose attributes have the wire's names.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from models.comparison import Position
from models.release import Release
from models.rubric import Rubric
from service.store import RubricRecord


class Answer(BaseModel):
    """Anything that is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class CriterionOut(Answer):
    """One line of a rubric; weights add up to 1."""

    name: str
    description: str
    weight: float


class RecordOut(Answer):
    """How often evaluators reached the verdict, or the label, by a rubric alone."""

    opinions: int
    agreed: int


class RubricOut(Answer):
    """The criteria as text, and as far as they could be read."""

    id: str
    text: str
    criteria: tuple[CriterionOut, ...]
    justification: str | None
    record: RecordOut | None = None

    @classmethod
    def of(cls, rubric: Rubric | None, record: RubricRecord | None) -> Self | None:
        """The rubric on the wire; None where there is none."""
        if rubric is None:
            return None
        known = record is not None and record.opinions > 0
        shown = RecordOut.model_validate(record) if known else None
        return cls.model_validate(rubric).model_copy(update={"record": shown})


class VerdictOut(Answer):
    """One pass; `preferred` and `probability` speak of the responses as they were sent.

    `label_mass` is the share of the verdict token's probability that lies on 1 and 2; `surprisal`
    the largest, in nats, of a word of its own that the judge had before it, null where there was
    none: where it is high the judge doubted what it wrote, and the calibration heeds that.
    """

    order: Literal["given", "swapped"]
    preferred: Position | None
    probability: float | None
    label_mass: float | None
    surprisal: float | None
    text: str


class ReleaseOut(Answer):
    """Which release judged."""

    name: str
    fingerprint: str
    purpose: Literal["demo", "production"]

    @classmethod
    def of(cls, release: Release) -> Self:
        """The release on the wire."""
        config = release.config
        return cls(name=config.name, fingerprint=release.fingerprint, purpose=config.purpose)


class UsageOut(Answer):
    """Tokens as the engine counted them, and how often it was asked."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    calls: int


class TimingOut(Answer):
    """Seconds in each stage."""

    queue_s: float
    image_s: float
    engine_s: float
    total_s: float
