"""Questions about scenes, two responses each, and an oracle's judgement of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from models.comparison import Comparison, JudgeImage, LabeledComparison, Position
from models.judgement import verdict_prefix, write_rubric
from models.rubric import Rubric
from models.toyworld.scene import COLOURS, SHAPES, Scene, draw, random_scene


@dataclass(frozen=True, slots=True)
class ToyCase:
    """A labeled comparison about a scene, with what a perfect judge would write.

    Attributes:
        family: which kind of question it is.
        evaluation: the fact, then one line a response that ends in right or wrong.
    """

    family: str
    scene: Scene
    question: str
    responses: tuple[str, str]
    label: Position
    rubric: Rubric
    evaluation: str

    def labeled(self) -> LabeledComparison:
        """The case as a judge receives it, drawing included."""
        picture = JudgeImage(draw(self.scene), identity=f"toy:{self.scene!r}")
        return LabeledComparison(Comparison(self.question, self.responses, (picture,)), self.label)

    def picture(self) -> Image.Image:
        """The drawing alone."""
        return draw(self.scene)

    def written(self, *, rubric_given: bool = False, evaluated: bool = True) -> str:
        """The perfect judge's answer, in the judgement grammar."""
        if not evaluated:
            return f"{verdict_prefix(None if rubric_given else self.rubric)}{self.label}</answer>"
        rubric = "" if rubric_given else write_rubric(self.rubric) + "\n"
        return f"{rubric}<eval>\n{self.evaluation}\n</eval>\n<answer>{self.label}</answer>"


@dataclass(frozen=True, slots=True)
class _Dispute:
    """A question with what is true, what a wrong response claims, and how each is said."""

    family: str
    question: str
    truth: str
    falsehood: str
    fact: str
    say: str  # with one hole for the claim
    criterion: str
    reason: str


def make_case(rng: random.Random, family: str | None = None) -> ToyCase:
    """A fresh case; the same `rng` state gives the same case."""
    makers = _FAMILIES
    name = family if family is not None else rng.choice(list(makers))
    scene = random_scene(rng)
    while (dispute := makers[name](scene, rng)) is None:  # the scene does not offer it
        scene = random_scene(rng)
    label: Position = 1 if rng.random() < 0.5 else 2
    claims = (
        (dispute.truth, dispute.falsehood) if label == 1 else (dispute.falsehood, dispute.truth)
    )
    first, second = (dispute.say.format(claim) for claim in claims)
    return ToyCase(
        family=name,
        scene=scene,
        question=dispute.question,
        responses=(first, second),
        label=label,
        rubric=_rubric(dispute, rng),
        evaluation=_evaluation(dispute, claims),
    )


def _evaluation(dispute: _Dispute, claims: tuple[str, str]) -> str:
    lines = [f"The image shows: {dispute.fact}."]
    for place, claim in enumerate(claims, start=1):
        finding = "right" if claim == dispute.truth else "wrong"
        lines.append(f"Response {place} says {claim}: {place} {finding}.")
    return "\n".join(lines)


def _rubric(dispute: _Dispute, rng: random.Random) -> Rubric:
    weight = rng.choice((60, 70, 80))
    return Rubric(
        f"1. {dispute.criterion} ({weight}%): it matches the image.\n"
        f"2. Relevance ({100 - weight}%): it answers what was asked.",
        dispute.reason,
    )


def _count(scene: Scene, rng: random.Random) -> _Dispute | None:
    kind = rng.choice(scene.objects)
    true = scene.count(kind.colour, kind.shape)
    false = rng.choice([n for n in range(1, 6) if n != true and abs(n - true) <= 2])
    return _Dispute(
        family="count",
        question=f"How many {kind.name}s are there?",
        truth=str(true),
        falsehood=str(false),
        fact=f"{kind.name} {true}",
        say=rng.choice(("There are {}.", "I count {}.", "{}")),
        criterion="Count accuracy",
        reason="The question asks for a number.",
    )


def _colour(scene: Scene, rng: random.Random) -> _Dispute | None:
    single = [o for o in scene.objects if scene.count(shape=o.shape) == 1]
    if not single:
        return None
    asked = rng.choice(single)
    return _Dispute(
        family="colour",
        question=f"What colour is the {asked.shape}?",
        truth=asked.colour,
        falsehood=rng.choice([c for c in COLOURS if c != asked.colour]),
        fact=asked.name,
        say=rng.choice(("It is {}.", "The " + asked.shape + " is {}.", "{}")),
        criterion="Colour accuracy",
        reason="The question asks for a colour.",
    )


def _existence(scene: Scene, rng: random.Random) -> _Dispute | None:
    present = rng.random() < 0.5
    if present:
        name = rng.choice(scene.objects).name
    else:
        absent = [f"{c} {s}" for c in COLOURS for s in SHAPES if not scene.count(c, s)]
        name = rng.choice(absent)
    truth, falsehood = ("yes", "no") if present else ("no", "yes")
    return _Dispute(
        family="existence",
        question=f"Is there a {name}?",
        truth=truth,
        falsehood=falsehood,
        fact=f"{name} {truth}",
        say=rng.choice(("{}", "The answer is {}.")),
        criterion="Existence accuracy",
        reason="The question asks whether something is there.",
    )


def _relation(scene: Scene, rng: random.Random) -> _Dispute | None:
    single = [o for o in scene.objects if scene.count(o.colour, o.shape) == 1]
    if len(single) < 2:
        return None
    one, two = rng.sample(single, 2)
    vertical = rng.random() < 0.5
    places = ("above", "below") if vertical else ("left", "right")
    apart = one.row - two.row if vertical else one.column - two.column
    if apart == 0:
        return None
    truth, falsehood = places if apart < 0 else places[::-1]
    return _Dispute(
        family="relation",
        question=f"Is the {one.name} {places[0]} or {places[1]} of the {two.name}?",
        truth=truth,
        falsehood=falsehood,
        fact=f"{one.name} {truth} {two.name}",
        say=rng.choice(("{}", "It is {}.")),
        criterion="Position accuracy",
        reason="The question asks for a position.",
    )


_FAMILIES: dict[str, Callable[[Scene, random.Random], _Dispute | None]] = {
    "count": _count,
    "colour": _colour,
    "existence": _existence,
    "relation": _relation,
}
FAMILIES = tuple(_FAMILIES)
"""The kinds of question that `make_case` knows."""
