"""In which order of quality many responses stand."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from models.release import Release
from service.api.schemas.parts import Answer, ReleaseOut, RubricOut, TimingOut, UsageOut
from service.judging import AbstentionReason
from service.judging.ranking import Ranking, Stop
from service.ranking import Ranked


class RankedOut(Answer):
    """Where one response stands."""

    index: int
    strength: float = Field(description="Bradley-Terry, in nats; the mean of all is 0")
    interval: tuple[float, float] = Field(description="95%, of the strength")
    win_rate: float = Field(description="mean P(better) over all others")
    reward: float = Field(description="net win rate, -1..1; the mean of all is 0")


class ComparedOut(Answer):
    """One comparison, by index; `probability` is P(`first` is better)."""

    first: int
    second: int
    probability: float | None
    status: Literal["ok", "abstain"]


class SpentOut(Answer):
    """What a ranking cost; tokens read and written."""

    comparisons: int
    tokens: int


class RankAnswer(Answer):
    """A ranking, best first; empty when no rubric to judge by could be written."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    ranking: tuple[int, ...]
    scores: tuple[RankedOut, ...] = Field(description="in the order in which they were sent")
    comparisons: tuple[ComparedOut, ...]
    cycles: tuple[tuple[int, int, int], ...] = Field(
        description="each of the three beats the next, and the last the first"
    )
    stopped: Stop | None = Field(description="why no more were compared")
    spent: SpentOut
    rubric: RubricOut | None
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut

    @classmethod
    def of(cls, ranked: Ranked, request_id: str, release: Release) -> Self:
        """The ranking on the wire."""
        found, usage = ranked.ranking, ranked.usage
        met = found.met if found is not None else ()
        return cls(
            id=request_id,
            status="ok" if ranked.reason is None else "abstain",
            reason=ranked.reason,
            ranking=found.order if found is not None else (),
            scores=_scores(found) if found is not None else (),
            comparisons=tuple(
                ComparedOut(
                    first=one.first,
                    second=one.second,
                    probability=one.probability,
                    status="abstain" if one.probability is None else "ok",
                )
                for one in met
            ),
            cycles=found.cycles if found is not None else (),
            stopped=found.stopped if found is not None else None,
            spent=SpentOut(
                comparisons=len(met), tokens=usage.prompt_tokens + usage.completion_tokens
            ),
            rubric=RubricOut.of(ranked.rubric, ranked.record),
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(usage),
            timing=TimingOut.model_validate(ranked.timing),
        )


def _scores(found: Ranking) -> tuple[RankedOut, ...]:
    intervals = found.strengths.interval_N2
    return tuple(
        RankedOut(
            index=index,
            strength=float(strength),
            interval=(float(intervals[index, 0]), float(intervals[index, 1])),
            win_rate=float(found.win_rate_N[index]),
            reward=float(found.reward_N[index]),
        )
        for index, strength in enumerate(found.strengths.mean_N)
    )
