"""What is kept of what was read: quality and difficulty; similarity has its own module.

A filter looks at one record after the other and says why one is to be left out.
The same records in the same order give the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from models.training.data.drops import Drop, DropReason
from models.training.data.images import ImageRefused, Look
from models.training.data.records import JudgedRecord, PreferenceRecord

R = TypeVar("R", bound=PreferenceRecord)

TEACHER_VERDICTS = "teacher_verdicts"
"""Key of a judged record's meta: the verdict of each sample, in the order that the record has."""

_REFUSAL = re.compile(
    r"\A\W*(?:"
    r"(?:i['’]?m|i am) (?:(?:very |really |so )?sorry\b|unable\b|not able\b)|sorry,"
    r"|i (?:can ?not|can['’]t) (?:assist|help|answer|provide|view|see|process|fulfil)"
    r"|as an? (?:ai|artificial intelligence|language model|text-based)\b)",
    re.IGNORECASE,
)
_REFUSAL_CHARACTERS = 400
"""A longer text that begins with an apology usually goes on to answer."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class QualityOptions(_Options):
    """Bounds of what can be judged at all."""

    question_characters: int = Field(default=6000, ge=1, description="longer ones are dropped")
    response_characters: int = Field(default=8000, ge=1, description="longer ones are dropped")
    fewest_characters: int = Field(default=1, ge=1, description="of a response")
    shortest_side: int = Field(default=28, ge=1, description="of an image, in pixels")
    needs_image: bool = True
    drop_refusals: bool = Field(default=True, description="when either response is boilerplate")


class DifficultyOptions(_Options):
    """Which pairs teach nothing. All off by default: the teacher has not spoken yet."""

    drop_all_right: bool = Field(
        default=False, description="the teacher was right in every sample: too easy"
    )
    drop_all_wrong: bool = Field(
        default=False, description="wrong in every sample: too hard, or the label is wrong"
    )
    fewest_samples: int = Field(default=2, ge=1, description="of the teacher, to say either")
    longest_ratio: float | None = Field(
        default=None, gt=1, description="between the lengths of the responses, better longer"
    )


class Filter(Protocol):
    """One reason or several to leave a record out."""

    def check(self, record: PreferenceRecord) -> Drop | None:
        """Why the record is left out; None when it stays."""
        ...


@dataclass(frozen=True, slots=True)
class Filtered(Generic[R]):
    """Both halves of what went in, each in the order of the input."""

    kept: list[R]
    drops: list[Drop]


def apply(records: Iterable[R], filters: Sequence[Filter]) -> Filtered[R]:
    """Runs the filters over records that fit into memory."""
    kept: list[R] = []
    drops: list[Drop] = []
    for record in records:
        drop = first_drop(record, filters)
        if drop is None:
            kept.append(record)
        else:
            drops.append(drop)
    return Filtered(kept, drops)


def first_drop(record: PreferenceRecord, filters: Iterable[Filter]) -> Drop | None:
    """What the first filter that objects says; later ones do not see the record."""
    return next((drop for one in filters if (drop := one.check(record)) is not None), None)


class Quality:
    """Leaves out what no judge could compare."""

    def __init__(self, options: QualityOptions, look: Look) -> None:
        self._options = options
        self._look = look

    def check(self, record: PreferenceRecord) -> Drop | None:
        """Looks at the texts first: decoding an image costs a thousand times more."""
        found = next(self._text_faults(record), None) or next(self._image_faults(record), None)
        return found and Drop(id=record.id, reason=found[0], detail=found[1])

    def _text_faults(self, record: PreferenceRecord) -> Iterator[tuple[DropReason, str]]:
        options = self._options
        question, lengths = record.question.strip(), [len(text) for text in record.responses]
        plain = [" ".join(text.split()).casefold() for text in record.responses]
        if not question:
            yield DropReason.EMPTY_QUESTION, ""
        if not all(plain):
            yield DropReason.EMPTY_RESPONSE, ""
        if plain[0] == plain[1]:
            yield DropReason.IDENTICAL_RESPONSES, ""
        if len(question) > options.question_characters:
            yield DropReason.QUESTION_TOO_LONG, f"{len(question)} characters"
        if min(lengths) < options.fewest_characters:
            yield DropReason.RESPONSE_TOO_SHORT, f"{min(lengths)} characters"
        if max(lengths) > options.response_characters:
            yield DropReason.RESPONSE_TOO_LONG, f"{max(lengths)} characters"
        if options.drop_refusals and any(map(is_refusal, record.responses)):
            yield DropReason.REFUSAL, ""

    def _image_faults(self, record: PreferenceRecord) -> Iterator[tuple[DropReason, str]]:
        if self._options.needs_image and not record.images:
            yield DropReason.NO_IMAGE, ""
        for ref in record.images:
            try:
                look = self._look(ref)
            except ImageRefused as cause:
                yield cause.reason, str(cause)
                return
            if min(look.width, look.height) < self._options.shortest_side:
                yield DropReason.IMAGE_TOO_SMALL, f"{look.width} x {look.height} pixels"


def is_refusal(response: str) -> bool:
    """Whether a response is boilerplate that declines to answer."""
    return len(response) <= _REFUSAL_CHARACTERS and _REFUSAL.match(response) is not None


class Difficulty:
    """Leaves out what is decided without looking, or what even a teacher never gets right."""

    def __init__(self, options: DifficultyOptions) -> None:
        self._options = options

    def check(self, record: PreferenceRecord) -> Drop | None:
        """A record that no teacher has judged often enough stays."""
        right = teacher_right(record)
        if len(right) >= self._options.fewest_samples:
            votes = f"the teacher was right {sum(right)} times of {len(right)}"
            if self._options.drop_all_right and all(right):
                return Drop(id=record.id, reason=DropReason.TOO_EASY, detail=votes)
            if self._options.drop_all_wrong and not any(right):
                return Drop(id=record.id, reason=DropReason.TOO_HARD, detail=votes)
        better, worse = better_and_worse(record)
        most = self._options.longest_ratio
        if most is not None and len(better) > most * len(worse):
            detail = f"{len(better)} to {len(worse)} characters"
            return Drop(id=record.id, reason=DropReason.TOLD_BY_LENGTH, detail=detail)
        return None


def teacher_right(record: PreferenceRecord) -> tuple[bool, ...]:
    """Of each sample that a teacher gave, whether its verdict was the label.

    The samples are those of ``meta["teacher_verdicts"]``, else the one judgement
    of the record. Empty for a record that is not judged: its order may have
    changed since such verdicts were noted.
    """
    if not isinstance(record, JudgedRecord):
        return ()
    verdicts = record.meta.get(TEACHER_VERDICTS)
    if isinstance(verdicts, list) and verdicts:
        return tuple(verdict == record.label for verdict in verdicts)
    return (record.teacher_is_right,)


def better_and_worse(record: PreferenceRecord) -> tuple[str, str]:
    """The two responses by their label."""
    first, second = record.responses
    return (first, second) if record.label == 1 else (second, first)
