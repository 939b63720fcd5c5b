"""Jobs on the wire."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from service.api.schemas.parts import Answer
from service.api.schemas.requests import StrictRequest
from service.jobs import JobState, JobStatus


class JobRequest(StrictRequest):
    """A job whose lines are read from a file instead of being sent."""

    source: str = Field(
        min_length=1,
        max_length=2048,
        description="URL of a .jsonl, .ndjson or .parquet under a place that the operator lists",
    )


class JobAccepted(Answer):
    """A job that will be worked on."""

    id: str
    state: JobState


class CountsOut(Answer):
    """Lines by what came of them; the rest of `total` has no result yet."""

    total: int
    ok: int
    abstain: int
    error: int


class JobAnswer(Answer):
    """How far a job has come."""

    id: str
    state: JobState
    counts: CountsOut
    eta_s: float | None = Field(description="seconds; null while nobody can tell")
    reason: str | None = Field(description="why it failed")

    @classmethod
    def of(cls, status: JobStatus) -> Self:
        """The job on the wire."""
        counts = CountsOut.model_validate(status)
        return cls(
            id=status.id,
            state=status.state,
            counts=counts,
            eta_s=status.eta_s,
            reason=status.reason,
        )
