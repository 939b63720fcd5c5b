"""Facts about a scene, many at a time: dense supervision for learning to see."""

from __future__ import annotations

import random
from collections.abc import Callable

from models.toyworld.aspects import (
    Fact,
    Kind,
    colour_fact,
    count_fact,
    description_fact,
    digit_fact,
    existence_fact,
    places_fact,
    relation_fact,
    size_fact,
    with_other_detail,
)
from models.toyworld.scene import CELLS, COLOURS, COLUMNS, HELD_OUT, ROWS, SHAPES, Scene


def random_facts(scene: Scene, rng: random.Random, number: int) -> list[Fact]:
    """Up to `number` different facts, of all kinds, none about a combination kept from training."""
    found: dict[str, Fact] = {}
    for _ in range(number):
        fact = rng.choice(_LOOKS)(scene, rng)
        if fact is not None:
            found.setdefault(fact.text, fact)
    return list(found.values())


def cell_words(scene: Scene) -> list[list[str]]:
    """For each cell in reading order, the words for its place and for what it shows."""
    words = [[row, column] for row in ROWS for column in COLUMNS]
    for o in scene.objects:
        words[o.row * CELLS + o.column] += [o.colour, o.shape, o.size] + ["digit"] * o.is_digit
    return words


def _shown(scene: Scene) -> list[Kind]:
    return [(o.shape, o.colour) for o in scene.objects if not o.is_digit and not o.is_held_out]


def _any_kind(scene: Scene, rng: random.Random) -> Kind:
    """As often something shown as something that is not, the latter mostly half there."""
    shown = _shown(scene)
    if shown and rng.random() < 0.5:
        return rng.choice(shown)
    absent = [
        (s, c) for s in SHAPES for c in COLOURS if (s, c) not in HELD_OUT and not scene.count(s, c)
    ]
    near = [k for k in absent if any(k[0] == o.shape or k[1] == o.colour for o in scene.objects)]
    return rng.choice(near or absent)


def _count(scene: Scene, rng: random.Random) -> Fact | None:
    kinds = sorted(set(_shown(scene)))
    if not kinds:
        return None
    # Two of a kind are rare in a scene: without this, "1" would nearly always be true.
    weights = [scene.count(*kind) ** 4 for kind in kinds]
    return count_fact(scene, *rng.choices(kinds, weights)[0])


def _colour(scene: Scene, rng: random.Random) -> Fact | None:
    found = [shape for shape, _ in _shown(scene) if scene.count(shape) == 1]
    return colour_fact(scene, rng.choice(found)) if found else None


def _existence(scene: Scene, rng: random.Random) -> Fact:
    return existence_fact(scene, *_any_kind(scene, rng))


def _pair(scene: Scene, rng: random.Random) -> tuple[Kind, Kind] | None:
    single = [kind for kind in _shown(scene) if scene.count(*kind) == 1]
    if len(single) < 2:
        return None
    one, two = rng.sample(single, 2)
    return one, two


def _thing(scene: Scene, rng: random.Random) -> Fact | None:
    """``red circle: large, row top, column B``."""
    single = [o for o in scene.objects if not o.is_held_out and scene.count(o.shape, o.colour) == 1]
    if not single:
        return None
    o = rng.choice(single)
    answer = f"{o.size}, row {ROWS[o.row]}, column {COLUMNS[o.column]}"
    return Fact((f"{o.name}:", f" {answer}"), answer)


def _relation(scene: Scene, rng: random.Random) -> Fact | None:
    pair = _pair(scene, rng)
    return relation_fact(scene, *pair, vertical=rng.random() < 0.5) if pair else None


def _size(scene: Scene, rng: random.Random) -> Fact | None:
    pair = _pair(scene, rng)
    return size_fact(scene, *pair) if pair else None


def _digit(scene: Scene, rng: random.Random) -> Fact | None:
    seen = [o.colour for o in scene.digits if not o.is_held_out]
    return digit_fact(scene, rng.choice(seen)) if seen else None


def _places(scene: Scene, rng: random.Random) -> Fact | None:
    """Of up to three things: half are there, and the others would be but for one detail."""
    shown = [o for o in scene.objects if not o.is_digit and not o.is_held_out]
    asked = rng.sample(shown, min(3, len(shown)))
    asked = [o if rng.random() < 0.5 else with_other_detail(o, rng) for o in asked]
    return places_fact(scene, [f"{o.size} {o.name}" for o in asked]) if asked else None


def _description(scene: Scene, _rng: random.Random) -> Fact | None:
    if len(scene.objects) > 4 or any(o.is_held_out for o in scene.objects):
        return None
    return description_fact(scene)


_LOOKS: tuple[Callable[[Scene, random.Random], Fact | None], ...] = (
    _count,
    _count,
    _count,
    _thing,
    _thing,
    _colour,
    _existence,
    _relation,
    _relation,
    _size,
    _digit,
    _description,
    _description,
    _places,
    _places,
)
