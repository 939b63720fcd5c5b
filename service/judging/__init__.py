"""From a comparison to a judgement."""

from service.judging.given_rubric import read_given_rubric
from service.judging.judge import Judge
from service.judging.judgement import (
    AbstentionReason,
    Judgement,
    JudgingOptions,
    Pass,
    Stopped,
    Usage,
    WrittenRubric,
)
from service.judging.reading import read_pass

__all__ = [
    "AbstentionReason",
    "Judge",
    "Judgement",
    "JudgingOptions",
    "Pass",
    "Stopped",
    "Usage",
    "WrittenRubric",
    "read_given_rubric",
    "read_pass",
]
