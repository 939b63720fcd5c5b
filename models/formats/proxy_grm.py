"""This project's own judgement grammar as an output format."""

from __future__ import annotations

from typing_extensions import override

from models.formats.contract import OutputFormat
from models.judgement import (
    ANSWER_END,
    GRAMMAR_REVISION,
    GRAMMARS,
    Part,
    WrittenJudgement,
    read_judgement,
    verdict_prefix,
)
from models.neutralise import OWN_TAGS
from models.prompts import DEFAULT_DIR


class ProxyGrm(OutputFormat):
    """Rubric, evaluation, answer."""

    revision = GRAMMAR_REVISION
    prompts_dir = DEFAULT_DIR
    opening = "write_rubric"
    tags = OWN_TAGS
    verdict_depth = True
    answer_end = ANSWER_END

    @override
    def read(self, text: str, begins_with: Part) -> WrittenJudgement:
        return read_judgement(text, begins_with)

    @override
    def verdict_prefix(self) -> str:
        return verdict_prefix(None)

    @override
    def grammar(self, begins_with: Part) -> str:
        return GRAMMARS[begins_with]
