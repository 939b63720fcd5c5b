"""The contract between serving a judge and the way in which that judge was taught to write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from models.judgement import Part, WrittenJudgement
from models.prompts import Layout


class OutputFormat(ABC):
    """How a judge is asked and what it writes. It has no state: one instance serves all.

    A rubric, where the judge writes one, comes first and in this project's own block
    (`models.judgement`); what follows it is the format's affair.

    Attributes:
        revision: part of every fingerprint: raise it when the same text would be read differently.
        prompts_dir: its prompt files, used where a release has none of its own.
        opening: the layout in which it is asked when no rubric is given.
        tags: names that mean something to the judge between angle brackets.
        marks: what else parts its prompt, such as ``[Response 1]:``. The text transform takes
            the power from tags and marks alike where a candidate writes them.
        verdict_depth: whether the judge was taught to give a verdict without an evaluation.
        answer_end: what ends a generation, where the grammar is enforced.
    """

    revision: ClassVar[int]
    prompts_dir: ClassVar[Path]
    opening: ClassVar[Layout] = "no_rubric"
    tags: ClassVar[tuple[str, ...]]
    marks: ClassVar[tuple[str, ...]] = ()
    verdict_depth: ClassVar[bool] = False
    answer_end: ClassVar[str]

    @property
    def writes_rubric(self) -> bool:
        """Whether the judge writes a rubric when none is given."""
        return self.opening == "write_rubric"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The prompt files that a judge of this format needs."""
        return (self.opening, "rubric_given")

    @abstractmethod
    def read(self, text: str, begins_with: Part) -> WrittenJudgement:
        """Reads a complete judgement, strictly: what a candidate was quoted with is no verdict.

        Args:
            text: all that was generated.
            begins_with: ``evaluation`` where a rubric was given.

        Raises:
            UnreadableJudgement: the text is anything but one judgement in this format.
        """

    @abstractmethod
    def verdict_prefix(self) -> str:
        """The shortest text after which the next token is the verdict, a rubric left out.

        A release is checked at it: each of its labels has to be one token there.
        """

    def grammar(self, begins_with: Part) -> str | None:
        """A regular expression, each match of which `read` takes; None leaves the text free."""
        return None
