"""In which order of quality many responses stand."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal, Self

from pydantic import Field

from models.comparison import Position
from models.release import Release
from service.api.schemas.parts import Answer, ReleaseOut, RubricOut, TimingOut, UsageOut
from service.judging import AbstentionReason, OpinionStatus, Usage, Voice, agreement
from service.judging.ranking import Met, Ranking, Stop
from service.ranking import Panel, Ranked


class RankedOut(Answer):
    """Where one response stands; nothing is known where no comparison of it could be read."""

    index: int
    status: Literal["ok", "abstain"]
    strength: float | None = Field(description="Bradley-Terry, in nats; the mean of all is 0")
    interval: tuple[float, float] | None = Field(description="95%, of the strength")
    win_rate: float | None = Field(description="mean P(better) over all others")
    reward: float | None = Field(description="net win rate, -1..1; the mean of all is 0")


class OpinionOut(Answer):
    """What an evaluator says of one comparison, given the rubric."""

    name: str
    status: OpinionStatus
    preferred: Position | None = Field(description="1: `first`, 2: `second`")
    probability: float | None = Field(description="P(`first` is better), where it says how sure")


class ComparedOut(Answer):
    """One comparison, by index; `probability` is P(`first` is better), the judge's own."""

    first: int
    second: int
    probability: float | None
    status: Literal["ok", "abstain"]
    evaluators: tuple[OpinionOut, ...]
    agreement: float | None = Field(description="share of the opinions that prefer the same")

    @classmethod
    def of(cls, one: Met, voices: tuple[Voice, ...]) -> Self:
        """The comparison on the wire."""
        return cls(
            first=one.first,
            second=one.second,
            probability=one.probability,
            status="abstain" if one.probability is None else "ok",
            evaluators=tuple(
                OpinionOut(
                    name=voice.name,
                    status=voice.opinion.status,
                    preferred=voice.opinion.preferred,
                    probability=voice.opinion.probability,
                )
                for voice in voices
            ),
            agreement=agreement(voices, one.preferred),
        )


class HeardOut(Answer):
    """An evaluator over all comparisons: how its opinions ended, and whose side they are on."""

    name: str
    ok: int
    abstain: int
    timeout: int
    unavailable: int
    agreement: float | None = Field(
        description="share of its opinions that prefer what the judge does"
    )
    usage: UsageOut

    @classmethod
    def of(cls, name: str, panel: Panel, met: tuple[Met, ...]) -> Self:
        """The evaluator on the wire."""
        said = [
            (one.preferred, voice.opinion)
            for one, voices in zip(met, panel.voices, strict=True)
            for voice in voices
            if voice.name == name
        ]
        ended = Counter(opinion.status for _, opinion in said)
        held = [
            opinion.preferred == preferred
            for preferred, opinion in said
            if preferred is not None and opinion.status == "ok"
        ]
        return cls(
            name=name,
            ok=ended["ok"],
            abstain=ended["abstain"],
            timeout=ended["timeout"],
            unavailable=ended["unavailable"],
            agreement=sum(held) / len(held) if held else None,
            usage=UsageOut.model_validate(sum((o.usage for _, o in said), Usage())),
        )


class RankPanelOut(Answer):
    """The ranking that judge and evaluators come to, by their weights in each comparison."""

    ranking: tuple[int, ...]
    scores: tuple[RankedOut, ...]
    cycles: tuple[tuple[int, int, int], ...]


class SpentOut(Answer):
    """What a ranking cost; tokens that the judge read and wrote."""

    comparisons: int
    tokens: int


class RankAnswer(Answer):
    """A ranking, best first; empty when no rubric, or no comparison at all, could be read."""

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
    evaluators: tuple[HeardOut, ...]
    agreement: float | None = Field(
        description="share of all opinions that prefer what the judge does in their comparison"
    )
    panel: RankPanelOut | None = Field(description="null where no evaluator had an opinion")
    spent: SpentOut
    rubric: RubricOut | None
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut

    @classmethod
    def of(cls, ranked: Ranked, request_id: str, release: Release) -> Self:
        """The ranking on the wire."""
        made, usage = ranked.ranking, ranked.usage
        met = made.met if made is not None else ()
        found = made if ranked.reason is None else None
        voices = ranked.panel.voices if ranked.panel is not None else ((),) * len(met)
        return cls(
            id=request_id,
            status="ok" if ranked.reason is None else "abstain",
            reason=ranked.reason,
            ranking=found.order if found is not None else (),
            scores=_scores(found) if found is not None else (),
            comparisons=tuple(map(ComparedOut.of, met, voices)),
            cycles=found.cycles if found is not None else (),
            stopped=made.stopped if made is not None else None,
            **_heard(ranked),
            spent=SpentOut(
                comparisons=len(met), tokens=usage.prompt_tokens + usage.completion_tokens
            ),
            rubric=RubricOut.of(ranked.rubric, ranked.record),
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(usage),
            timing=TimingOut.model_validate(ranked.timing),
        )


def _heard(ranked: Ranked) -> dict[str, Any]:
    """What the evaluators say, over all comparisons."""
    panel, found = ranked.panel, ranked.ranking
    if panel is None or found is None:
        return {"evaluators": (), "agreement": None, "panel": None}
    names = dict.fromkeys(voice.name for voices in panel.voices for voice in voices)
    heard = tuple(HeardOut.of(name, panel, found.met) for name in names)
    held = [
        voice.opinion.preferred == one.preferred
        for one, voices in zip(found.met, panel.voices, strict=True)
        for voice in voices
        if one.preferred is not None and voice.opinion.status == "ok"
    ]
    shown = RankPanelOut(
        ranking=panel.ranking.order, scores=_scores(panel.ranking), cycles=panel.ranking.cycles
    )
    return {
        "evaluators": heard,
        "agreement": sum(held) / len(held) if held else None,
        "panel": shown if any(one.ok for one in heard) else None,
    }


def _scores(found: Ranking) -> tuple[RankedOut, ...]:
    return tuple(_ranked(found, index) for index in range(len(found.win_rate_N)))


def _ranked(found: Ranking, index: int) -> RankedOut:
    if index in found.unread:
        return RankedOut(
            index=index, status="abstain", strength=None, interval=None, win_rate=None, reward=None
        )
    low, high = found.strengths.interval_N2[index].tolist()
    return RankedOut(
        index=index,
        status="ok",
        strength=float(found.strengths.mean_N[index]),
        interval=(low, high),
        win_rate=float(found.win_rate_N[index]),
        reward=float(found.reward_N[index]),
    )
