"""The wire contract: `requests` are strict; answers are made of `parts`."""

from service.api.schemas.jobs import CountsOut, JobAccepted, JobAnswer, JobRequest
from service.api.schemas.judgements import RubricAnswer, ScoreAnswer, VerifyAnswer
from service.api.schemas.opinions import (
    AttemptOut,
    CheckedEvaluatorOut,
    ConfiguredOut,
    EvaluatorOut,
    GateOut,
    PanelOut,
)
from service.api.schemas.parts import (
    Answer,
    CriterionOut,
    RecordOut,
    ReleaseOut,
    RubricOut,
    TimingOut,
    UsageOut,
    VerdictOut,
)
from service.api.schemas.problems import FieldError, LineError, Problem
from service.api.schemas.rankings import (
    ComparedOut,
    HeardOut,
    OpinionOut,
    RankAnswer,
    RankedOut,
    RankPanelOut,
    SpentOut,
)
from service.api.schemas.requests import (
    ImageIn,
    RankRequest,
    RubricIn,
    RubricRequest,
    ScoreRequest,
    VerifyRequest,
)
from service.api.schemas.runs import ImageRelianceOut, RateOut, RunAnswer

__all__ = [
    "Answer",
    "AttemptOut",
    "CheckedEvaluatorOut",
    "ComparedOut",
    "ConfiguredOut",
    "CountsOut",
    "CriterionOut",
    "EvaluatorOut",
    "FieldError",
    "GateOut",
    "HeardOut",
    "ImageIn",
    "ImageRelianceOut",
    "JobAccepted",
    "JobAnswer",
    "JobRequest",
    "LineError",
    "OpinionOut",
    "PanelOut",
    "Problem",
    "RankAnswer",
    "RankPanelOut",
    "RankRequest",
    "RankedOut",
    "RateOut",
    "RecordOut",
    "ReleaseOut",
    "RubricAnswer",
    "RubricIn",
    "RubricOut",
    "RubricRequest",
    "RunAnswer",
    "ScoreAnswer",
    "ScoreRequest",
    "SpentOut",
    "TimingOut",
    "UsageOut",
    "VerdictOut",
    "VerifyAnswer",
    "VerifyRequest",
]
