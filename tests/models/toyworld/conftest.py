"""An oracle of the toy world that shares its phrasings and its scenes, and none of its answers."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from models.toyworld.phrasing import (
    INSTRUCTIONS,
    NEEDLESS,
    PRIORITIES,
    QUESTIONS,
    STATEMENTS,
    TOPICS,
)
from models.toyworld.scene import COLOURS, COLUMNS, HELD_OUT, ROWS, SHAPES, Scene, SceneObject

COLOUR, SHAPE, DIGIT = "|".join(COLOURS), "|".join(SHAPES), "[0-9]"
KIND = f"(?:{COLOUR}) (?:{SHAPE})"
TOPIC = "|".join((*TOPICS.values(), "relevance", "brevity"))
THING = f"(?:small|large) (?:{COLOUR}) (?:{SHAPE}|digit {DIGIT})"
HOLES = {
    "kind": KIND,
    "one": KIND,
    "two": KIND,
    "shape": SHAPE,
    "colour": COLOUR,
    "before": "above|to the left",
    "after": "below|to the right of",
    "first": TOPIC,
    "second": TOPIC,
}
CLAIMS = {
    "count": "[0-9]+",
    "colour": COLOUR,
    "existence": "yes|no",
    "relation": "above|below|to the left|to the right",
    "size": KIND,
    "digit": DIGIT,
    "description": f"{THING}(?:, {THING})*",
}
FAMILIES = tuple(CLAIMS)
LOOKED_AT = {
    "count": "{kind}s",
    "colour": "{shape} colour",
    "existence": "a {kind}",
    "digit": "{colour} digit",
    "description": "all",
}


@dataclass(frozen=True)
class Asked:
    """A question about a scene: its family, and what its holes were filled with."""

    family: str
    names: tuple[tuple[str, str], ...]

    def __getitem__(self, hole: str) -> str:
        return dict(self.names)[hole]


@dataclass(frozen=True)
class Question:
    """Everything that a question says, sentence by sentence.

    Attributes:
        wish: the form that is asked for; None where none is.
        first, second: topics by priority; second is None where it is not named.
        kept: for each sentence, whether its phrasing is kept from training.
    """

    asked: tuple[Asked, ...]
    wish: str | None
    first: str | None
    second: str | None
    kept: tuple[bool, ...]


@dataclass(frozen=True)
class Said:
    """A response: its claims, and whether it has the form of a single word or holds padding."""

    claims: tuple[str, ...]
    bare: bool
    padded: bool = False


def pattern(template: str) -> re.Pattern[str]:
    """What a template may become."""
    text = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for hole, values in HOLES.items():
        text = text.replace(f"{{{hole}}}", f"(?P<{hole}>{values})")
    return re.compile(text + "(?: |$)")


SENTENCES = [
    (kind, name, kept, pattern(template))
    for kind, table in (
        ("ask", QUESTIONS),
        ("wish", INSTRUCTIONS),
        ("prefer", {"priority": PRIORITIES}),
    )
    for name, phrasings in table.items()
    for kept, templates in ((False, phrasings.trained), (True, phrasings.held_out))
    for template in templates
]
STATED = {
    family: [re.compile(re.escape(t).replace(r"\{\}", f"({CLAIMS[family]})")) for t in templates]
    for family, templates in STATEMENTS.items()
}


class Oracle:
    """Reads questions and responses, and looks at scenes."""

    families = FAMILIES

    @functools.lru_cache(maxsize=512)  # noqa: B019 - there is one oracle
    def question(self, text: str) -> Question:
        """The question read to its end; fails on a sentence that no phrasing gives."""
        asked: list[Asked] = []
        wish = first = second = None
        kept: list[bool] = []
        while text:
            ((kind, name, is_kept, match),) = [
                (kind, name, kept, match)
                for kind, name, kept, sentence in SENTENCES
                if (match := sentence.match(text))
            ]
            text = text[match.end() :]
            kept.append(is_kept)
            holes = match.groupdict()
            if kind == "ask":
                asked.append(Asked(name, tuple(sorted(holes.items()))))
            elif kind == "wish":
                wish = name
            else:
                first, second = holes["first"], holes.get("second")
        return Question(tuple(asked), wish, first, second, tuple(kept))

    def said(self, text: str, families: list[str]) -> Said:
        """What a response claims on each of these matters, in their order."""
        said = self.heard(text, families)
        assert said is not None, f"no statement about {families} reads {text!r}"
        return said

    def heard(self, text: str, families: list[str]) -> Said | None:
        """The same, or None where the response is about something else."""
        padding = next((p for p in NEEDLESS if text.endswith(f" {p}")), None)
        if padding is not None:
            text = text.removesuffix(f" {padding}")
        if len(families) == 1 and re.fullmatch(CLAIMS[families[0]], text):
            return Said((text,), bare=True, padded=padding is not None)
        for sentences in itertools.product(*(STATED[family] for family in families)):
            whole = " ".join(sentence.pattern for sentence in sentences)
            if match := re.fullmatch(whole, text):
                return Said(match.groups(), bare=False, padded=padding is not None)
        return None

    def truth(self, scene: Scene, asked: Asked) -> str | None:
        """The right answer, worked out from the objects alone; None where there is none."""
        return getattr(self, f"_{asked.family}")(scene, asked)

    def fact(self, scene: Scene, asked: Asked) -> str:
        """The truth as rubrics and evaluations put it: what is looked at, then the answer."""
        if asked.family in ("relation", "size"):
            kinds = (asked["one"], asked["two"])
            looked_at = ", ".join(f"{kind} {self._seen(scene, asked, kind)}" for kind in kinds)
        else:
            looked_at = LOOKED_AT[asked.family].format(**dict(asked.names))
        if asked.family == "description":
            things = self._description(scene, asked).split(", ")
            places = [place(row, column) for row, column in sorted(cells(scene))]
            return f"{looked_at}: {', '.join(map(' '.join, zip(places, things, strict=False)))}"
        if asked.family in ("count", "existence"):
            found = sorted((row, column) for row, column, _ in self._of_kind(scene, asked["kind"]))
            named = found if asked.family == "count" else found[:1]
            looked_at += f": {', '.join(place(*cell) for cell in named) or 'nowhere'}"
        return f"{looked_at}: {self.truth(scene, asked)}"

    def places(self, scene: Scene, things: list[str]) -> list[str]:
        """Where each thing is: the nth of equal ones at the nth place that shows such a thing."""
        found: list[str] = []
        for at, thing in enumerate(things):
            equal = sorted((o.row, o.column) for o in scene.objects if named(o) == thing)
            before = things[:at].count(thing)
            found.append(place(*equal[before]) if before < len(equal) else "nowhere")
        return found

    def _seen(self, scene: Scene, asked: Asked, kind: str) -> str:
        ((row, column, size),) = self._of_kind(scene, kind)
        if asked.family == "size":
            return size
        return f"row {ROWS[row]}" if asked["before"] == "above" else f"column {COLUMNS[column]}"

    def _of_kind(self, scene: Scene, kind: str) -> list[tuple[int, int, str]]:
        return [(o.row, o.column, o.size) for o in scene.objects if f"{o.colour} {o.shape}" == kind]

    def _count(self, scene: Scene, asked: Asked) -> str:
        return str(len(self._of_kind(scene, asked["kind"])))

    def _existence(self, scene: Scene, asked: Asked) -> str:
        return "yes" if self._of_kind(scene, asked["kind"]) else "no"

    def _colour(self, scene: Scene, asked: Asked) -> str | None:
        found = [o.colour for o in scene.objects if o.shape == asked["shape"]]
        return found[0] if len(found) == 1 else None

    def _digit(self, scene: Scene, asked: Asked) -> str | None:
        written = [o for o in scene.objects if o.shape.isdigit()]
        found = [o.shape for o in written if o.colour == asked["colour"]]
        return found[0] if len(found) == 1 else None

    def _relation(self, scene: Scene, asked: Asked) -> str | None:
        one, two = self._of_kind(scene, asked["one"]), self._of_kind(scene, asked["two"])
        if len(one) != 1 or len(two) != 1:
            return None
        (row, column, _), (other_row, other_column, _) = one[0], two[0]
        if asked["before"] == "above":
            return {-1: "above", 0: None, 1: "below"}[_sign(row - other_row)]
        return {-1: "to the left", 0: None, 1: "to the right"}[_sign(column - other_column)]

    def _size(self, scene: Scene, asked: Asked) -> str | None:
        one, two = self._of_kind(scene, asked["one"]), self._of_kind(scene, asked["two"])
        if len(one) != 1 or len(two) != 1 or one[0][2] == two[0][2]:
            return None
        return asked["one"] if one[0][2] == "large" else asked["two"]

    def _description(self, scene: Scene, _asked: Asked) -> str:
        in_order = sorted(scene.objects, key=lambda o: 100 * o.row + o.column)
        return ", ".join(map(named, in_order))

    def true_of_something(self, scene: Scene, family: str, claim: str) -> bool:
        """Whether the claim answers some question of its family about this scene."""
        return any(self.truth(scene, asked) == claim for asked in _every_question(family))

    def combinations(self, text: str, asked: Iterable[Asked] = ()) -> set[tuple[str, str]]:
        """(shape or digit, colour) that a text names, or claims in answer to a question."""
        found = {(s, c) for c, s in re.findall(rf"\b({COLOUR}) ({SHAPE})", text)}
        found |= {(d, c) for c, d in re.findall(rf"\b({COLOUR}) digit:? ({DIGIT})", text)}
        found |= {(s, c) for s, c in re.findall(rf"\b({SHAPE}) colour: ({COLOUR})", text)}
        for question in asked:
            if question.family == "colour":
                found |= {(question["shape"], c) for c in re.findall(rf"\b({COLOUR})\b", text)}
            if question.family == "digit":
                found |= {(d, question["colour"]) for d in re.findall(rf"\b({DIGIT})\b", text)}
        return found

    def kept_from_training(self, text: str, asked: Iterable[Asked] = ()) -> set[tuple[str, str]]:
        """Those combinations of a text that training must not show."""
        return self.combinations(text, asked) & HELD_OUT


def cells(scene: Scene) -> list[tuple[int, int]]:
    """Where something stands."""
    return [(o.row, o.column) for o in scene.objects]


def named(o: SceneObject) -> str:
    """What a description calls it."""
    return f"{o.size} {o.colour} {'digit ' * o.shape.isdigit()}{o.shape}"


def place(row: int, column: int) -> str:
    """What a cell is called."""
    return f"{ROWS[row]} {COLUMNS[column]}"


def _every_question(family: str) -> Iterator[Asked]:
    kinds = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    if family in ("count", "existence"):
        yield from (Asked(family, (("kind", kind),)) for kind in kinds)
    elif family == "colour":
        yield from (Asked(family, (("shape", shape),)) for shape in SHAPES)
    elif family == "digit":
        yield from (Asked(family, (("colour", colour),)) for colour in COLOURS)
    elif family in ("relation", "size"):
        for one, two in itertools.permutations(kinds, 2):
            for before in ("above", "to the left"):
                yield Asked(family, (("before", before), ("one", one), ("two", two)))
    else:
        yield Asked(family, ())


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Knows what is asked, what is claimed and what is true."""
    return Oracle()
