"""Rubrics: weighted criteria for one question, and reading the criteria out of a text."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import islice

_ITEM = re.compile(
    r"""^[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]++     # "1." "1)" "-" "*" "•"
        (?P<name>[^\n]{1,200}?)
        [(\[]?[ \t]*+(?<![\d.])(?P<weight>\d{1,3}(?:\.\d{1,4})?)[ \t]*%[ \t]*[)\]]?
        [ \t*_]*(?:[:\-–—][ \t]*)?(?P<description>[^\n]*)$""",
    re.MULTILINE | re.VERBOSE,
)
MOST_CRITERIA = 64
"""Listed of one rubric. A text of nothing but short ones would be seven times as long as a list."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One line of a rubric.

    Attributes:
        name: what is judged.
        description: when it is met; may be empty.
        weight: share of the whole, 0..1; the weights of a rubric add up to 1.
    """

    name: str
    description: str
    weight: float


@dataclass(frozen=True, slots=True)
class Rubric:
    """A judge's (or a user's) criteria as text, without tags.

    Attributes:
        text: everything between the rubric tags except the justification.
        justification: why these criteria and weights; never shown to an evaluator.
    """

    text: str
    justification: str | None = None

    @property
    def id(self) -> str:
        """``rub_`` and 24 hex digits: the digest of the text, so equal texts share it."""
        return "rub_" + hashlib.sha256(self.text.encode()).hexdigest()[:24]

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """The criteria that could be read, weights normalised to 1; empty where none could.

        Empty as well where there are more than `MOST_CRITERIA`.
        """
        return read_criteria(self.text)


def read_criteria(text: str) -> tuple[Criterion, ...]:
    """Reads numbered or bulleted lines that carry a weight in percent.

    A best effort: a text without such lines, with more than `MOST_CRITERIA` of them, or whose
    weights add up to nothing, has no criteria and stays a usable rubric.
    """
    items = (
        (match["name"].strip(" *_([:-–—"), match["description"].strip(), float(match["weight"]))
        for match in _ITEM.finditer(text)
        if match["name"].strip(" *_([:-–—")
    )
    found = [*islice(items, MOST_CRITERIA + 1)]
    total = sum(weight for _, _, weight in found)
    if total <= 0 or len(found) > MOST_CRITERIA:
        return ()
    return tuple(
        Criterion(name, description, weight / total) for name, description, weight in found
    )
