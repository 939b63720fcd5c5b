"""One thing asked about a scene: what must be drawn, what is true, what a wrong answer says.

Truth and falsehood are drawn as an unordered pair before it is decided which of them the scene
shows: the two claims of a pair are equally likely to be the true one, and nobody who does not look
does better than chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models.toyworld.phrasing import TOPICS
from models.toyworld.scene import (
    CELLS,
    COLOURS,
    COLUMNS,
    DIGITS,
    HELD_OUT,
    ROWS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    arrange,
    random_object,
)

_PLACES = {True: ("above", "below"), False: ("to the left", "to the right")}
"""By whether the question is about rows."""

NOWHERE = "nowhere"
"""The place of what is not there."""

Cell = tuple[int, int]
Kind = tuple[str, str]
"""Shape and colour."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something looked up in a scene, in the words of an evaluation.

    Attributes:
        pieces: alternately what is looked for and what is seen. A piece that is seen
            begins with its space, as a byte-level tokenizer's words do.
        answer: the claim that is true.
        alternatives: claims of its kind that training may make; none where they can't be listed.
        family: whose statements say such a claim; None where no response makes it.
    """

    pieces: tuple[str, ...]
    answer: str
    alternatives: tuple[str, ...] = ()
    family: str | None = None

    @property
    def text(self) -> str:
        """``red circle row top, blue square row lower: above``."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Aspect:
    """One question about a scene that is still to be drawn.

    Attributes:
        names: fills the holes of the family's phrasings.
        claims: what is true, and what a wrong response claims.
        objects: must be in the scene.
        look: reads the fact out of a scene; None where the scene does not settle it.
        alone: nothing but `objects` may be in the scene.
    """

    family: str
    names: dict[str, str]
    claims: tuple[str, str]
    objects: tuple[SceneObject, ...]
    look: Callable[[Scene], Fact | None]
    alone: bool = False

    @property
    def truth(self) -> str:
        """The claim that the scene must show."""
        return self.claims[0]


@dataclass
class Planner:
    """Invents aspects and a scene that shows them.

    Attributes:
        held_out: ask about combinations that are kept from training.
    """

    rng: random.Random
    held_out: bool = False
    _free: list[Cell] = field(default_factory=list[Cell], init=False)
    _kinds: list[Kind] = field(default_factory=list[Kind], init=False)
    _taken: set[str] = field(default_factory=set[str], init=False)

    def __post_init__(self) -> None:
        self._free = [(r, c) for r in range(CELLS) for c in range(CELLS)]
        self.rng.shuffle(self._free)

    def plan(self, family: str) -> Aspect:
        """An aspect of that family, its objects in cells that no earlier aspect has taken."""
        # Two aspects about one shape can rule each other's truths out; the pairs that are left
        # would give one of them away.
        self._taken = {shape for shape, _ in self._kinds}
        return _PLANS[family](self)

    def scene(self, aspects: list[Aspect]) -> Scene | None:
        """The planned objects among others that leave every truth as it is; None if they clash."""
        objects = [o for aspect in aspects for o in aspect.objects]
        scene = arrange(objects)
        if not _shows(scene, aspects):
            return None
        if any(aspect.alone for aspect in aspects):
            return scene
        wanted = len(objects) + self.rng.randint(1, 5)
        for _ in range(20):
            if len(objects) >= wanted or not self._free:
                break
            other = self._distractor()
            wider = arrange([*objects, other])
            if _shows(wider, aspects):
                objects, scene = [*objects, other], wider
                self._free.remove((other.row, other.column))
        return scene

    def _distractor(self) -> SceneObject:
        """Half of them share the shape or the colour of what is asked about."""
        cell = self._free[-1]
        if self._kinds and self.rng.random() < 0.5:
            shape, colour = self.rng.choice(self._kinds)
            if self.rng.random() < 0.5:
                shape = self.rng.choice(SHAPES)
            else:
                colour = self.rng.choice(list(COLOURS))
            if self.held_out or (shape, colour) not in HELD_OUT:
                return SceneObject(shape, colour, self.rng.choice(SIZES), *cell)
        return random_object(self.rng, cell, held_out=self.held_out)

    def _kind(self, shapes: tuple[str, ...] = SHAPES) -> Kind:
        """A combination to ask about: of the kept ones when `held_out`, else of the others."""
        kinds = [
            (shape, colour)
            for shape in shapes
            for colour in COLOURS
            if ((shape, colour) in HELD_OUT) == self.held_out and shape not in self._taken
        ]
        kind = self.rng.choice(kinds)
        self._kinds.append(kind)
        return kind

    def _place(self, kind: Kind, size: str | None = None, cell: Cell | None = None) -> SceneObject:
        cell = self._free[-1] if cell is None else cell
        self._free.remove(cell)
        return SceneObject(*kind, size or self.rng.choice(SIZES), *cell)

    def _flip(self, pair: tuple[str, str]) -> tuple[str, str]:
        return pair if self.rng.random() < 0.5 else (pair[1], pair[0])

    def count(self) -> Aspect:
        """How many of one kind."""
        shape, colour = kind = self._kind()
        one = self.rng.randint(1, 5)
        two = self.rng.choice([n for n in range(1, 6) if n != one and abs(n - one) <= 2])
        claims = self._flip((str(one), str(two)))
        # As many cells are taken whichever claim is true.
        objects = tuple(self._place(kind) for _ in range(max(one, two)))
        return Aspect(
            "count",
            {"kind": _name(kind)},
            claims,
            objects[: int(claims[0])],
            lambda scene: count_fact(scene, shape, colour),
        )

    def colour(self) -> Aspect:
        """The colour of the only thing of its shape."""
        shape, colour = self._kind()
        others = [c for c in COLOURS if c != colour]
        if not self.held_out:
            others = [c for c in others if (shape, c) not in HELD_OUT]
        claims = self._flip((colour, self.rng.choice(others)))
        return Aspect(
            "colour",
            {"shape": shape},
            claims,
            (self._place((shape, claims[0])),),
            lambda scene: colour_fact(scene, shape),
        )

    def existence(self) -> Aspect:
        """Whether there is one of a kind."""
        shape, colour = kind = self._kind()
        claims = self._flip(("yes", "no"))
        there = (self._place(kind),)  # a cell is taken whichever claim is true
        return Aspect(
            "existence",
            {"kind": _name(kind)},
            claims,
            there if claims[0] == "yes" else (),
            lambda scene: existence_fact(scene, shape, colour),
        )

    def relation(self) -> Aspect:
        """Which of two things is further up, or further left."""
        one, two = self._two_kinds()
        vertical = self.rng.random() < 0.5
        places = _PLACES[vertical]
        claims = self._flip(places)
        axis = 0 if vertical else 1
        low, high = self._apart(axis)
        cells = (low, high) if claims[0] == places[0] else (high, low)
        return Aspect(
            "relation",
            {
                "one": _name(one),
                "two": _name(two),
                "before": places[0],
                "after": places[1] if vertical else f"{places[1]} of",
            },
            claims,
            tuple(self._place(k, cell=c) for k, c in zip((one, two), cells, strict=True)),
            lambda scene: relation_fact(scene, one, two, vertical=vertical),
        )

    def size(self) -> Aspect:
        """Which of two things is larger."""
        one, two = self._two_kinds()
        claims = self._flip((_name(one), _name(two)))
        sizes = ("large", "small") if claims[0] == _name(one) else ("small", "large")
        return Aspect(
            "size",
            {"one": _name(one), "two": _name(two)},
            claims,
            tuple(self._place(k, size=s) for k, s in zip((one, two), sizes, strict=True)),
            lambda scene: size_fact(scene, one, two),
        )

    def digit(self) -> Aspect:
        """The only digit written in a colour."""
        value, colour = self._kind(DIGITS)
        others = [d for d in DIGITS if d != value]
        if not self.held_out:
            others = [d for d in others if (d, colour) not in HELD_OUT]
        claims = self._flip((value, self.rng.choice(others)))
        return Aspect(
            "digit",
            {"colour": colour},
            claims,
            (self._place((claims[0], colour)),),
            lambda scene: digit_fact(scene, colour),
        )

    def description(self) -> Aspect:
        """Everything there is; a wrong response has one detail wrong, one thing more or less."""
        cells = [self._free[-1 - n] for n in range(self.rng.randint(2, 3))]
        objects = [random_object(self.rng, c, held_out=self.held_out, digits=False) for c in cells]
        if self.held_out:
            objects[0] = SceneObject(*self._kind(), self.rng.choice(SIZES), *cells[0])
        one, two = arrange(objects), arrange(self._altered(objects))
        true, false = (one, two) if self.rng.random() < 0.5 else (two, one)
        for o in true.objects:
            self._free.remove((o.row, o.column))
        return Aspect(
            "description",
            {},
            (list_objects(true), list_objects(false)),
            true.objects,
            description_fact,
            alone=True,
        )

    def _altered(self, objects: list[SceneObject]) -> list[SceneObject]:
        """The same with one detail changed or one thing added."""
        if len(objects) < 3 and self.rng.random() < 0.4:
            cell = next(c for c in self._free if c not in {(o.row, o.column) for o in objects})
            return [*objects, random_object(self.rng, cell, held_out=False, digits=False)]
        at = self.rng.randrange(len(objects))
        return [*objects[:at], with_other_detail(objects[at], self.rng), *objects[at + 1 :]]

    def _two_kinds(self) -> tuple[Kind, Kind]:
        one = self._kind()
        while True:
            two = self._kind()
            if two != one:
                return one, two

    def _apart(self, axis: int) -> tuple[Cell, Cell]:
        """Two free cells, the first with the lower row (axis 0) or column (axis 1)."""
        pairs = [(a, b) for a in self._free for b in self._free if a[axis] < b[axis]]
        return self.rng.choice(pairs)


_PLANS: dict[str, Callable[[Planner], Aspect]] = {
    "count": Planner.count,
    "colour": Planner.colour,
    "existence": Planner.existence,
    "relation": Planner.relation,
    "size": Planner.size,
    "digit": Planner.digit,
    "description": Planner.description,
}
ASPECTS = tuple(_PLANS)


def with_other_detail(old: SceneObject, rng: random.Random) -> SceneObject:
    """The same thing but for its shape, its colour or its size; never kept from training."""
    while True:
        new = random_object(rng, (old.row, old.column), held_out=False, digits=False)
        if (old.shape == new.shape) + (old.colour == new.colour) + (old.size == new.size) == 2:
            return new


def finding(family: str, claim: str, truth: str) -> str:
    """``number 3, is 2: wrong``: the truth beside the claim: the two need only be compared."""
    return f"{TOPICS[family]} {claim}, is {truth}: {'correct' if claim == truth else 'wrong'}"


def count_fact(scene: Scene, shape: str, colour: str) -> Fact:
    """``red circles: top A, lower C: 2``: whoever names the places only has to count them."""
    found = scene.find(shape, colour)
    number = str(len(found))
    listed = f" {', '.join(o.place for o in found) or NOWHERE}: {number}"
    return Fact((f"{colour} {shape}s:", listed), number, DIGITS[1:6], "count")


def colour_fact(scene: Scene, shape: str) -> Fact | None:
    """``circle colour: red``; None unless there is exactly one circle."""
    found = scene.find(shape)
    if len(found) != 1:
        return None
    colour = found[0].colour
    others = tuple(c for c in COLOURS if (shape, c) not in HELD_OUT)
    return Fact((f"{shape} colour:", f" {colour}"), colour, others, "colour")


def existence_fact(scene: Scene, shape: str, colour: str) -> Fact:
    """``a red circle: lower C: yes``: the first place, if any, then the answer."""
    found = scene.find(shape, colour)
    answer = "yes" if found else "no"
    seen = f" {found[0].place if found else NOWHERE}: {answer}"
    return Fact((f"a {colour} {shape}:", seen), answer, ("yes", "no"), "existence")


def relation_fact(scene: Scene, one: Kind, two: Kind, *, vertical: bool) -> Fact | None:
    """``red circle row top, blue square row lower: above``; None unless each is there once."""
    first, second = scene.find(*one), scene.find(*two)
    if len(first) != 1 or len(second) != 1:
        return None
    a, b = (first[0].row, second[0].row) if vertical else (first[0].column, second[0].column)
    if a == b:
        return None
    line = "row" if vertical else "column"
    answer = _PLACES[vertical][a > b]
    names = ROWS if vertical else COLUMNS
    pieces = (
        f"{_name(one)} {line}",
        f" {names[a]}",
        f", {_name(two)} {line}",
        f" {names[b]}: {answer}",
    )
    return Fact(pieces, answer, _PLACES[vertical], "relation")


def size_fact(scene: Scene, one: Kind, two: Kind) -> Fact | None:
    """``red circle small, blue square large: blue square``; None unless each is there once."""
    first, second = scene.find(*one), scene.find(*two)
    if len(first) != 1 or len(second) != 1 or first[0].size == second[0].size:
        return None
    answer = _name(one if first[0].size == "large" else two)
    pieces = (
        f"{_name(one)}",
        f" {first[0].size}",
        f", {_name(two)}",
        f" {second[0].size}: {answer}",
    )
    return Fact(pieces, answer, (_name(one), _name(two)), "size")


def digit_fact(scene: Scene, colour: str) -> Fact | None:
    """``red digit: 7``; None unless there is exactly one in that colour."""
    found = [o for o in scene.digits if o.colour == colour]
    if len(found) != 1:
        return None
    digit = found[0].shape
    others = tuple(d for d in DIGITS if (d, colour) not in HELD_OUT)
    return Fact((f"{colour} digit:", f" {digit}"), digit, others, "digit")


def description_fact(scene: Scene) -> Fact:
    """``all: top A small red circle, lower C large blue square``, in reading order."""
    listed = ", ".join(f"{o.place} {o.size} {o.name}" for o in scene.objects)
    return Fact(("all:", f" {listed}"), list_objects(scene))


def places_fact(scene: Scene, things: Sequence[str]) -> Fact:
    """``small red circle top A, large blue circle nowhere``: of each thing where it is.

    Args:
        scene: looked at.
        things: size, colour and shape, as descriptions list them.
    """
    places = find_places(things, description_fact(scene).text)
    pieces: list[str] = []
    for thing, place in zip(things, places, strict=True):
        pieces += [f", {thing}" if pieces else thing, f" {place}"]
    return Fact(tuple(pieces), "".join(pieces))


def find_places(things: Sequence[str], everything: str) -> list[str]:
    """Where each thing is; of equal things each has a place of its own, as far as there are.

    Args:
        things: as descriptions list them.
        everything: the text of `description_fact`.
    """
    places: dict[str, list[str]] = {}
    listed = everything.removeprefix("all: ")
    for entry in listed.split(", ") if listed else ():
        row, column, thing = entry.split(" ", 2)
        places.setdefault(thing, []).append(f"{row} {column}")
    return [found.pop(0) if (found := places.get(thing)) else NOWHERE for thing in things]


def list_objects(scene: Scene) -> str:
    """``small red circle, large blue square``."""
    return ", ".join(f"{o.size} {o.name}" for o in scene.objects)


def _name(kind: Kind) -> str:
    return f"{kind[1]} {kind[0]}"


def _shows(scene: Scene, aspects: list[Aspect]) -> bool:
    facts = [aspect.look(scene) for aspect in aspects]
    return all(
        fact is not None and fact.answer == aspect.truth
        for fact, aspect in zip(facts, aspects, strict=True)
    )
