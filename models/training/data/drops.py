"""Why something was left out: every row and every record that does not come through is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class DropReason(StrEnum):
    """The reasons, by the step that gives them."""

    # reading
    UNREADABLE = "unreadable"  # damaged: not JSON, not UTF-8, a broken Parquet page
    MALFORMED = "malformed"  # a field is missing or is of another kind
    POINTWISE = "pointwise"  # one response with a score
    NO_PAIR = "no_pair"  # no known layout of two responses
    AMBIGUOUS = "ambiguous"  # a layout's marker or its verdict stands there twice, differing
    NO_VERDICT = "no_verdict"
    TIE = "tie"
    REPEATED_ID = "repeated_id"
    # quality
    EMPTY_QUESTION = "empty_question"
    EMPTY_RESPONSE = "empty_response"
    IDENTICAL_RESPONSES = "identical_responses"
    QUESTION_TOO_LONG = "question_too_long"
    RESPONSE_TOO_SHORT = "response_too_short"
    RESPONSE_TOO_LONG = "response_too_long"
    REFUSAL = "refusal"
    NO_IMAGE = "no_image"
    IMAGE_REFUSED = "image_refused"  # a URL, or a path that leaves its folder
    IMAGE_MISSING = "image_missing"
    IMAGE_DAMAGED = "image_damaged"
    IMAGE_TOO_SMALL = "image_too_small"
    IMAGE_TOO_LARGE = "image_too_large"
    # difficulty
    TOO_EASY = "too_easy"
    TOO_HARD = "too_hard"
    TOLD_BY_LENGTH = "told_by_length"
    # similarity
    NEAR_DUPLICATE = "near_duplicate"


class Drop(BaseModel):
    """One thing left out.

    Attributes:
        id: of the record; ``file:row`` of a row that never became one.
        detail: what exactly was wrong, for a person.
        duplicate_of: the id of the record that was kept instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    reason: DropReason
    detail: str = ""
    duplicate_of: str | None = None


def counted(reasons: Iterable[DropReason]) -> dict[str, int]:
    """How often each reason was given, in the order of `DropReason`."""
    counts = Counter(reasons)
    return {reason.value: counts[reason] for reason in DropReason if counts[reason]}
