"""What the judge and a single evaluator say."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from models.comparison import Position
from models.release import Release
from service.api.schemas.opinions import (
    CheckedEvaluatorOut,
    EvaluatorOut,
    GateOut,
    PanelOut,
)
from service.api.schemas.parts import (
    Answer,
    ReleaseOut,
    RubricOut,
    TimingOut,
    UsageOut,
    VerdictOut,
)
from service.judging import AbstentionReason, Stopped, agreement
from service.scoring import RubricWritten, Scored
from service.verifying import Verified


class ScoreAnswer(Answer):
    """A judgement. `preferred` is 1 exactly when `probability` >= 0.5."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    preferred: Position | None
    probability: float | None = Field(description="P(response 1 is better)")
    order_consistent: bool | None = Field(description="null where one order was read")
    stopped: Stopped = Field(description="why no more was asked of whom")
    rubric: RubricOut | None
    evaluation: str | None
    verdicts: tuple[VerdictOut, ...]
    evaluators: tuple[EvaluatorOut, ...]
    agreement: float | None = Field(
        description="share of the opinions that prefer what the judge does by itself"
    )
    panel: PanelOut | None = Field(description="null where no evaluator had an opinion")
    low_label_mass: bool = Field(
        description="a verdict token had less probability on 1 and 2 than judging.label_mass"
    )
    gate: GateOut | None = Field(description="null where no more than one rubric was to be tried")
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut
    cached: bool

    @classmethod
    def of(cls, scored: Scored, request_id: str, release: Release) -> Self:
        """The judgement on the wire."""
        judgement = scored.judgement
        return cls(
            id=request_id,
            status="ok" if judgement.reason is None else "abstain",
            reason=judgement.reason,
            preferred=judgement.preferred,
            probability=judgement.probability,
            order_consistent=judgement.order_consistent,
            stopped=judgement.stopped,
            rubric=RubricOut.of(judgement.rubric, scored.record),
            evaluation=judgement.evaluation,
            verdicts=tuple(VerdictOut.model_validate(found) for found in judgement.passes),
            evaluators=tuple(EvaluatorOut.of(voice) for voice in scored.voices),
            agreement=agreement(scored.voices, scored.own),
            panel=PanelOut.model_validate(scored.panel) if scored.panel is not None else None,
            low_label_mass=scored.low_label_mass,
            gate=GateOut.of(scored.gated) if scored.gated is not None else None,
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(judgement.usage),
            timing=TimingOut.model_validate(scored.timing),
            cached=scored.cached,
        )


class RubricAnswer(Answer):
    """A rubric; null with a `reason` when none could be read."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    rubric: RubricOut | None
    evaluators: tuple[CheckedEvaluatorOut, ...]
    agreement: float | None = Field(description="share of the opinions on the majority's side")
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut

    @classmethod
    def of(cls, done: RubricWritten, request_id: str, release: Release, label: int | None) -> Self:
        """The rubric on the wire."""
        return cls(
            id=request_id,
            status="ok" if done.written.reason is None else "abstain",
            reason=done.written.reason,
            rubric=RubricOut.of(done.written.rubric, done.record),
            evaluators=tuple(CheckedEvaluatorOut.against(voice, label) for voice in done.voices),
            agreement=agreement(done.voices),
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(done.written.usage),
            timing=TimingOut.model_validate(done.timing),
        )


class VerifyAnswer(Answer):
    """An evaluator's opinion. `preferred` is 1 exactly when `probability` >= 0.5, if it has one."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    preferred: Position | None
    probability: float | None = Field(description="P(response 1 is better by the rubric)")
    label_mass: float | None = Field(
        description="share of the verdict token's probability that lies on 1 and 2, if it is known"
    )
    reward: float | None = Field(
        description="+1 when `preferred` is the label, -1 when not; null without either"
    )
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut

    @classmethod
    def of(cls, verified: Verified, request_id: str, release: Release) -> Self:
        """The opinion on the wire."""
        opinion = verified.opinion
        return cls(
            id=request_id,
            status="ok" if opinion.status == "ok" else "abstain",
            reason=opinion.reason,
            preferred=opinion.preferred,
            probability=opinion.probability,
            label_mass=opinion.label_mass,
            reward=verified.reward,
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(opinion.usage),
            timing=TimingOut.model_validate(verified.timing),
        )
