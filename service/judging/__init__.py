"""From a comparison to a judgement."""

from service.judging.judge import Judge
from service.judging.judgement import (
    AbstentionReason,
    Judgement,
    JudgingOptions,
    Pass,
    Usage,
    WrittenRubric,
)

__all__ = [
    "AbstentionReason",
    "Judge",
    "Judgement",
    "JudgingOptions",
    "Pass",
    "Usage",
    "WrittenRubric",
]
