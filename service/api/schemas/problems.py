"""What went wrong: RFC 9457 problem documents."""

from __future__ import annotations

from service.api.schemas.parts import Answer


class FieldError(Answer):
    """Where a request is wrong, and how."""

    field: str
    problem: str


class Problem(Answer):
    """An RFC 9457 problem document.

    Attributes:
        retry_after_s: seconds until it is worth asking again, as in the `Retry-After` header, which
            a line of a batch or of a job does not have.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retry_after_s: int | None = None
    errors: tuple[FieldError, ...] | None = None


class LineError(Answer):
    """A line of a batch that got no judgement; `line` counts from 1."""

    id: str | None
    line: int
    error: Problem
