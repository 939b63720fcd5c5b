"""Rubrics as callers send them."""

from __future__ import annotations

from models.judgement import RUBRIC_END
from models.rubric import Rubric
from service.errors import InvalidRequest

_OPENING, _JUSTIFY = "<rubric>", "<justify>"


def read_given_rubric(text: str) -> Rubric:
    """A rubric that is bare, or still has the tags and the justification it was written with.

    Only what stands between the tags counts, and nothing from ``<justify>`` on
    is a criterion: a justification may name the verdict. Other tags are left to
    the text transform.

    Raises:
        InvalidRequest: the tag is never closed, so that a verdict may follow, or
            no criteria are left.
    """
    text = text.strip()
    if text.startswith(_OPENING):
        text, closed, _ = text.removeprefix(_OPENING).partition(RUBRIC_END)
        if not closed:
            raise InvalidRequest("rubric.text: <rubric> is opened and never closed")
    criteria = text.partition(_JUSTIFY)[0].strip()
    if not criteria:
        raise InvalidRequest("rubric.text: there are no criteria outside the justification")
    return Rubric(criteria)
