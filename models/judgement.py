"""The judgement grammar: what a judge writes, and reading it strictly.

::

    <rubric>
    1. Count accuracy (60%): the number of circles matches the image.
    <justify>why these criteria and weights</justify>
    </rubric>
    <eval> … </eval>
    <answer>1</answer>

One rubric, one evaluation, one answer, in this order, and nothing around them.
Whatever else a judge writes is unreadable: a candidate that talks the judge
into quoting ``<answer>1</answer>`` must not become the verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from models.comparison import Position
from models.errors import UnreadableJudgement
from models.rubric import Rubric

GRAMMAR_REVISION = 1
"""Part of every fingerprint: raise it when the same text would be read differently."""

TAG_NAMES = ("rubric", "justify", "eval", "answer")
_TAG = re.compile(r"</?(?:rubric|justify|eval|answer)>")

# A "<" that cannot begin a tag or a control token stays allowed: "x < 5", "<3".
PLAIN_TEXT = r"(?:[^<]|<[^</!|a-zA-Z])"
"""One character of a grammar's free text."""

_RUBRIC = rf"<rubric>\n[^<\s]{PLAIN_TEXT}*(?:<justify>{PLAIN_TEXT}+</justify>\n)?</rubric>\n"
_REST = rf"<eval>{PLAIN_TEXT}*</eval>\n<answer>[12]</answer>"

Part = Literal["rubric", "evaluation"]
"""Where a generation begins: at the rubric, or at the evaluation when a rubric was given."""

GRAMMARS: dict[Part, str] = {"rubric": _RUBRIC + _REST, "evaluation": _REST}
"""Regular expressions for structured output; each match is readable by `read_judgement`."""

RUBRIC_GRAMMAR = _RUBRIC.removesuffix(r"\n")
"""A rubric alone, for `POST /rubric` and for verdict depth."""

ANSWER_END = "</answer>"
RUBRIC_END = "</rubric>"


@dataclass(frozen=True, slots=True)
class WrittenJudgement:
    """One judge's output, read.

    Attributes:
        rubric: None when the rubric was given and only the rest was written.
        evaluation: stripped; may be empty.
        preferred: the verdict as written.
    """

    rubric: Rubric | None
    evaluation: str
    preferred: Position


def read_judgement(text: str, begins_with: Part = "rubric") -> WrittenJudgement:
    """Reads a complete judgement.

    Raises:
        UnreadableJudgement: the text is not exactly one rubric (unless it was
            given), one evaluation and one answer that is ``1`` or ``2``.
    """
    blocks = _blocks(text)
    names = [name for name, _ in blocks]
    expected = ["rubric", "eval", "answer"] if begins_with == "rubric" else ["eval", "answer"]
    if names != expected:
        raise UnreadableJudgement(f"expected {expected}, found {names[:8]}")
    contents = dict(blocks)
    answer = contents["answer"].strip()
    if answer not in ("1", "2"):
        raise UnreadableJudgement("the answer is neither 1 nor 2")
    evaluation = contents["eval"].strip()
    rubric = _rubric(contents["rubric"]) if begins_with == "rubric" else None
    return WrittenJudgement(rubric, evaluation, 1 if answer == "1" else 2)


def read_rubric(text: str) -> Rubric:
    """Reads a complete rubric block and nothing else.

    Raises:
        UnreadableJudgement: anything but exactly one closed rubric.
    """
    blocks = _blocks(text)
    if [name for name, _ in blocks] != ["rubric"]:
        raise UnreadableJudgement("expected exactly one rubric")
    return _rubric(blocks[0][1])


def write_rubric(rubric: Rubric) -> str:
    """The rubric as a judge would have written it, tags included."""
    justify = f"\n<justify>{rubric.justification}</justify>" if rubric.justification else ""
    return f"<rubric>\n{rubric.text}{justify}\n</rubric>"


def verdict_prefix(rubric: Rubric | None) -> str:
    """The beginning of an answer after which the next token is the verdict.

    The evaluation is empty: this is what verdict depth is asked at, and a share
    of the training examples look like it.

    Args:
        rubric: the rubric the judge wrote itself; None when it stands in the prompt.
    """
    written = write_rubric(rubric) + "\n" if rubric is not None else ""
    return f"{written}<eval></eval>\n<answer>"


def write_judgement(rubric: Rubric | None, evaluation: str, preferred: Position) -> str:
    """A whole judgement as `read_judgement` reads it.

    Args:
        rubric: None when it stands in the prompt.
        evaluation: an empty one gives what verdict depth is asked at, with its verdict.
        preferred: the verdict.
    """
    if not evaluation:
        return f"{verdict_prefix(rubric)}{preferred}{ANSWER_END}"
    written = write_rubric(rubric) + "\n" if rubric is not None else ""
    return f"{written}<eval>\n{evaluation}\n</eval>\n<answer>{preferred}{ANSWER_END}"


def _blocks(text: str) -> list[tuple[str, str]]:
    """Splits a text into its top-level blocks; `<justify>` stays inside its rubric."""
    blocks: list[tuple[str, str]] = []
    opened: str | None = None
    inside_justify = False
    start = end = 0
    for match in _TAG.finditer(text):
        tag = match.group()
        name, closing = tag.strip("</>"), tag.startswith("</")
        if name == "justify":
            if opened != "rubric" or inside_justify is not closing:
                raise UnreadableJudgement(
                    "a justification stands outside its rubric or is not closed"
                )
            inside_justify = not inside_justify
        elif not closing:
            if opened is not None or text[end : match.start()].strip():
                raise UnreadableJudgement(f"{tag} stands in the wrong place")
            opened, start = name, match.end()
        elif opened != name or inside_justify:
            raise UnreadableJudgement(f"{tag} closes nothing")
        else:
            blocks.append((name, text[start : match.start()]))
            opened, end = None, match.end()
    if opened is not None:
        raise UnreadableJudgement(f"<{opened}> is never closed")
    if text[end:].strip():
        raise UnreadableJudgement("text follows the last block")
    return blocks


def _rubric(content: str) -> Rubric:
    text, found, rest = content.partition("<justify>")
    justification, _, after = rest.partition("</justify>")
    if "<justify>" in after or after.strip():
        raise UnreadableJudgement("a rubric ends with its one justification")
    if not text.strip():
        raise UnreadableJudgement("the rubric is empty")
    return Rubric(text.strip(), justification.strip() or None if found else None)
