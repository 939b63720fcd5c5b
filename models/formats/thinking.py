"""Judges that think aloud and then answer: ``<think>…</think><answer>…</answer>``.

R1-Reward and UnifiedReward-Think share the two blocks and differ in what stands in the second.
They write no rubric. Both were taught to think before they answer, so that a verdict without a
thought would be somebody else's: depth ``verdict`` is not offered for them.
"""

from __future__ import annotations

import re
from typing import ClassVar

from typing_extensions import override

from models.comparison import Position
from models.errors import UnreadableJudgement
from models.formats.contract import OutputFormat
from models.judgement import PLAIN_TEXT, Part, WrittenJudgement
from models.prompts import DEFAULT_DIR

_TAG = re.compile(r"</?(?:think|answer)>")
_IN_ORDER = ["<think>", "</think>", "<answer>", "</answer>"]


class _Thinking(OutputFormat):
    """Attributes: `lead` and `tail` stand around the verdict's digit in the answer."""

    revision = 1
    tags = ("think", "answer")
    answer_end = "</answer>"
    between: ClassVar[str] = ""
    lead: ClassVar[str] = ""
    tail: ClassVar[str] = ""

    @override
    def read(self, text: str, begins_with: Part) -> WrittenJudgement:
        if _TAG.findall(text) != _IN_ORDER:
            raise UnreadableJudgement("expected one <think> block and one <answer> block after it")
        before, thought, between, answer, after = _TAG.split(text)
        if before.strip() or between.strip() or after.strip():
            raise UnreadableJudgement("text stands outside the two blocks")
        verdicts: dict[str, Position] = {
            f"{self.lead}1{self.tail}": 1,
            f"{self.lead}2{self.tail}": 2,
        }
        preferred = verdicts.get(answer.strip())
        if preferred is None:
            raise UnreadableJudgement(f"the answer is none of {[*verdicts]}")
        return WrittenJudgement(None, thought.strip(), preferred)

    @override
    def verdict_prefix(self) -> str:
        return f"<think></think>{self.between}<answer>{self.lead}"

    @override
    def grammar(self, begins_with: Part) -> str:
        return rf"<think>{PLAIN_TEXT}*</think>\n?<answer>{self.lead}[12]{self.tail}</answer>"


class R1Reward(_Thinking):
    """R1-Reward (arXiv 2505.02835): the answer is ``1`` or ``2``."""

    prompts_dir = DEFAULT_DIR / "r1_reward"
    marks = ("[Question]:", "[Rubric]:", "[Response 1]:", "[Response 2]:")


class UnifiedRewardThink(_Thinking):
    """UnifiedReward-Think (arXiv 2505.03318): the answer is ``Answer 1 is better`` or ``2``."""

    prompts_dir = DEFAULT_DIR / "unified_reward_think"
    marks = ("Question: [", "Rubric: [", "Answer 1: [", "Answer 2: [")
    between = "\n"
    lead = "Answer "
    tail = " is better"
