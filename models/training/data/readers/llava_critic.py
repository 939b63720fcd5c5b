"""lmms-lab/llava-critic-113k: pairs that have to be parsed out of a judge's prompt and answer.

Two layouts hold two responses::

    Question: [...]                    <|User Prompt|>
    Response 1: [...]                  ...
    Response 2: [...]                  <|The Start of Assistant A's Answer|>
                                       ...
                                       <|The End of Assistant A's Answer|>
                                       (and B)

In the first, responses are also called ``Response A`` and ``The first response``.
The answer says ``The better response: [1]``, ``[A]`` or ``[first]``, or that both
are equally good; in the second, ``[[A>>B]]`` and the like. Rows that score one
response, or one against a reference answer, are not pairs. A text in which a
marker stands twice could be cut in two ways, and is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.comparison import Position
from models.training.data.drops import DropReason
from models.training.data.readers.pair import Fields, NotAPair, Pair, kept, text, turns

_BRACKET_NAMES = (
    ("Response 1", "Response 2"),
    ("Response A", "Response B"),
    ("The first response", "The second response"),
)
_BRACKET_MARKER = re.compile(
    r"^[ \t]*(Question|Response [12AB]|The (?:first|second) response):\s*\[", re.MULTILINE
)
_ARENA_MARKERS = (
    "<|User Prompt|>",
    "<|The Start of Assistant A's Answer|>",
    "<|The End of Assistant A's Answer|>",
    "<|The Start of Assistant B's Answer|>",
    "<|The End of Assistant B's Answer|>",
)
_POINTWISE = re.compile(
    r"^[ \t]*(?:The LMM response:|Text Caption:|\[Assistant [12]\]|Response:|Answer:)"
    r"|\bScore the response\b|\bFrom 0 to 100\b|\b[Ff]inal [Ss]core\b|\bscore of 1 to 10\b",
    re.MULTILINE,
)

_BETTER = re.compile(
    r"\bbetter response(?: is)?:?\s*\[\s*(?:the )?(?:response )?(first|second|[12ab])\b",
    re.IGNORECASE,
)
_BETTER_IN_WORDS = re.compile(
    r"\A\W*(?:The )?(?:response ([12ab])|(first|second) response) is better\b", re.IGNORECASE
)
_EQUAL = re.compile(
    r"\bequally (?:good|bad|well)\b|\bresponses are (?:identical|equal)", re.IGNORECASE
)
_ARENA = re.compile(r"\[\[\s*(A>>B|A>B|A=B|B>A|B>>A|[ABC])\s*\]\]")
_POSITIONS: dict[str, Position] = {
    "first": 1, "1": 1, "a": 1, "a>b": 1, "a>>b": 1,
    "second": 2, "2": 2, "b": 2, "b>a": 2, "b>>a": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cut:
    question: str
    responses: tuple[str, str]


def parse(fields: Fields) -> Pair:
    """The pair of a row.

    Raises:
        NotAPair: it is none, a tie, or cannot be parsed.
    """
    conversation = turns(fields)
    if len(conversation) != 2:
        raise NotAPair(DropReason.MALFORMED, f"{len(conversation)} turns instead of two")
    prompt, answer = (text(turn, "value") for turn in conversation)
    cut = _cut(prompt.replace("\r\n", "\n"))
    label = read_verdict(answer)
    meta = kept(fields, "id", "source")
    return Pair(cut.question, fields.get("image"), cut.responses, label, meta)


def read_verdict(answer: str) -> Position:
    """Which response the answer prefers.

    Raises:
        NotAPair: it is a tie, says both, or says neither.
    """
    marks: list[str] = _ARENA.findall(answer) + _BETTER.findall(answer)
    if not marks:
        in_words = _BETTER_IN_WORDS.match(answer)
        marks = [in_words[1] or in_words[2]] if in_words else []
    said: set[Position | None] = {_POSITIONS.get(mark.lower()) for mark in marks}
    if len(said) > 1:
        raise NotAPair(DropReason.AMBIGUOUS, f"verdicts {', '.join(sorted(set(marks)))}")
    position = said.pop() if said else None
    if position is not None:
        return position
    if marks or _EQUAL.search(answer):
        raise NotAPair(DropReason.TIE)
    raise NotAPair(DropReason.NO_VERDICT, f"the answer begins {answer[:80]!r}")


def _cut(prompt: str) -> _Cut:
    markers = list(_BRACKET_MARKER.finditer(prompt))
    names = tuple(marker[1] for marker in markers)
    if len(names) >= 3:
        if not any(names == ("Question", *pair) for pair in _BRACKET_NAMES):
            raise NotAPair(DropReason.AMBIGUOUS, f"markers {', '.join(names[:6])}")
        question, first, second = markers
        return _Cut(
            _closed(prompt[question.end() : first.start()], "the question"),
            (
                _closed(prompt[first.end() : second.start()], "the first response"),
                _last(prompt[second.end() :]),
            ),
        )
    if all(marker in prompt for marker in _ARENA_MARKERS):
        return _arena(prompt)
    if _POINTWISE.search(prompt):
        raise NotAPair(DropReason.POINTWISE)
    raise NotAPair(DropReason.NO_PAIR, f"no known layout; the prompt begins {prompt[:80]!r}")


def _arena(prompt: str) -> _Cut:
    if any(prompt.count(marker) != 1 for marker in _ARENA_MARKERS):
        raise NotAPair(DropReason.AMBIGUOUS, "a marker of the arena layout stands there twice")
    at = [prompt.index(marker) for marker in _ARENA_MARKERS]
    if at != sorted(at):
        raise NotAPair(DropReason.AMBIGUOUS, "the markers of the arena layout are out of order")
    asked, first, first_end, second, second_end = (
        (begin, begin + len(marker)) for begin, marker in zip(at, _ARENA_MARKERS, strict=True)
    )
    return _Cut(
        prompt[asked[1] : first[0]],
        (prompt[first[1] : first_end[0]], prompt[second[1] : second_end[0]]),
    )


def _closed(part: str, what: str) -> str:
    part = part.rstrip()
    if not part.endswith("]"):
        raise NotAPair(DropReason.AMBIGUOUS, f"{what} has no closing bracket")
    return part[:-1]


def _last(part: str) -> str:
    """The second response: up to the last bracket that ends a line; instructions may follow."""
    lines = part.rstrip().split("\n")
    while lines and not lines[-1].rstrip().endswith("]"):
        lines.pop()
    return _closed("\n".join(lines), "the second response")
