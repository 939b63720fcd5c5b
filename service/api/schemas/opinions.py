"""What evaluators say."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from models.comparison import Position
from service.api.schemas.parts import Answer, UsageOut
from service.evaluators import GuardedEvaluator
from service.evaluators.breaker import BreakerState
from service.judging import AbstentionReason, OpinionStatus, Voice
from service.rubric_gate import Gated, Stop


class EvaluatorOut(Answer):
    """What an evaluator says, given the rubric; `timeout` and `unavailable` cost nobody else."""

    name: str
    status: OpinionStatus
    reason: AbstentionReason | None = Field(description="why it abstains")
    preferred: Position | None
    probability: float | None = Field(
        description="null also where the evaluator only says which response is better"
    )
    label_mass: float | None = Field(
        description="share of the verdict token's probability that lies on 1 and 2, if it is known"
    )
    latency_s: float
    usage: UsageOut

    @classmethod
    def of(cls, voice: Voice) -> Self:
        """The opinion on the wire."""
        opinion = voice.opinion
        return cls(
            name=voice.name,
            status=opinion.status,
            reason=opinion.reason,
            preferred=opinion.preferred,
            probability=opinion.probability,
            label_mass=opinion.label_mass,
            latency_s=opinion.latency_s,
            usage=UsageOut.model_validate(opinion.usage),
        )


class CheckedEvaluatorOut(EvaluatorOut):
    """What an evaluator says, and whether that is the label."""

    correct: bool | None = Field(description="null without a label or an opinion")

    @classmethod
    def against(cls, voice: Voice, label: int | None) -> Self:
        """The opinion on the wire, held against the label."""
        said = voice.opinion.preferred
        correct = None if label is None or said is None else said == label
        return cls(**EvaluatorOut.of(voice).model_dump(), correct=correct)


class PanelOut(Answer):
    """What judge and evaluators come to, by their weights."""

    preferred: Position
    probability: float = Field(description="weighted mean of P(response 1 is better)")
    agreement: float = Field(description="share of the weight that prefers the same")


class AttemptOut(Answer):
    """A rubric that was tried on the evaluators."""

    rubric: str | None = Field(description="its id; null where none could be read")
    preferred: Position | None = Field(description="the judge's own verdict by it")
    agreement: float | None = Field(
        description="share of the opinions that prefer the same; null without either: whoever "
        "fails neither agrees nor disagrees"
    )


class GateOut(Answer):
    """How the rubric gate came to the judgement: it is the one of the highest agreement."""

    attempts: tuple[AttemptOut, ...]
    stopped: Stop = Field(description="why no further rubric was drafted")

    @classmethod
    def of(cls, gated: Gated) -> Self:
        """The gate on the wire."""
        return cls(
            attempts=tuple(
                AttemptOut(
                    rubric=rubric.id if (rubric := one.settled.judgement.rubric) else None,
                    preferred=one.preferred,
                    agreement=one.agreement,
                )
                for one in gated.attempts
            ),
            stopped=gated.stopped,
        )


class ConfiguredOut(Answer):
    """An evaluator that can be asked."""

    name: str
    kind: str = Field(description="which code it is")
    weight: float = Field(description="on a panel, where the judge's own verdict weighs 1")
    timeout_s: float
    state: BreakerState = Field(description="open: it failed and is not asked for a while")

    @classmethod
    def of(cls, evaluator: GuardedEvaluator) -> Self:
        """The evaluator on the wire."""
        settings = evaluator.settings
        return cls(
            name=evaluator.name,
            kind=settings.kind,
            weight=settings.weight,
            timeout_s=settings.timeout_s,
            state=evaluator.state,
        )
