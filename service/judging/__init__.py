"""From a comparison to a judgement."""

from service.judging.given_rubric import read_given_rubric
from service.judging.judge import Judge
from service.judging.judgement import (
    AbstentionReason,
    Drafting,
    Escalation,
    Judgement,
    JudgingOptions,
    Pass,
    Stopped,
    Usage,
    WrittenRubric,
)
from service.judging.opinion import (
    Opinion,
    OpinionStatus,
    PanelVerdict,
    Voice,
    agreement,
    panel_verdict,
)
from service.judging.reading import Start, begun, read_pass

__all__ = [
    "AbstentionReason",
    "Drafting",
    "Escalation",
    "Judge",
    "Judgement",
    "JudgingOptions",
    "Opinion",
    "OpinionStatus",
    "PanelVerdict",
    "Pass",
    "Start",
    "Stopped",
    "Usage",
    "Voice",
    "WrittenRubric",
    "agreement",
    "begun",
    "panel_verdict",
    "read_given_rubric",
    "read_pass",
]
