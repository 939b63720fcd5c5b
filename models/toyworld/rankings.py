"""Sixteen responses to one question, of which it is known how good each is.

The question asks about two matters and says which counts more. So there are four levels: right
about both, about the weightier one, about the other one, about neither. Responses of a level differ
in their words alone.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from models.toyworld.aspects import ASPECTS, Planner
from models.toyworld.phrasing import PRIORITIES, QUESTIONS, STATEMENTS, TOPICS
from models.toyworld.scene import Scene, draw

_A_LEVEL = 4
"""Responses of one level: as many as every two families have pairs of statements."""


@dataclass(frozen=True, slots=True)
class RankingCase:
    """A question about a scene and its responses in any order.

    Attributes:
        levels: how good each response is, 0..3.
    """

    scene: Scene
    question: str
    responses: tuple[str, ...]
    levels: tuple[int, ...]

    def picture(self) -> Image.Image:
        """The drawing."""
        return draw(self.scene)

    def agreement(self, ranking: Sequence[int]) -> float:
        """Kendall's tau of a ranking, best first, over the pairs whose order is known, -1..1."""
        place = {index: n for n, index in enumerate(ranking)}
        signs = [
            1 if place[one] < place[two] else -1
            for one, two in itertools.permutations(range(len(self.levels)), 2)
            if self.levels[one] > self.levels[two]
        ]
        return sum(signs) / len(signs)


def make_ranking_case(rng: random.Random) -> RankingCase:
    """A fresh case; the same `rng` state gives the same case."""
    while (case := _attempt(rng)) is None:
        pass  # what was planned did not fit into one scene
    return case


def _attempt(rng: random.Random) -> RankingCase | None:
    planner = Planner(rng)
    families = [family for family in ASPECTS if family != "description"]
    first, second = asked = [planner.plan(family) for family in rng.sample(families, 2)]
    scene = planner.scene(asked)
    if scene is None:
        return None
    graded: list[tuple[str, int]] = []
    for level in range(4):
        claims = (first.claims[level < 2], second.claims[level % 2 == 0])
        said = itertools.product(STATEMENTS[first.family], STATEMENTS[second.family])
        for one, two in rng.sample(list(said), _A_LEVEL):
            graded.append((f"{one.format(claims[0])} {two.format(claims[1])}", level))
    rng.shuffle(graded)
    questions = [QUESTIONS[a.family].pick(rng, held_out=False).format(**a.names) for a in asked]
    rng.shuffle(questions)
    topics = {"first": TOPICS[first.family], "second": TOPICS[second.family]}
    priority = PRIORITIES.pick(rng, held_out=False).format(**topics)
    return RankingCase(
        scene=scene,
        question=" ".join([*questions, priority]),
        responses=tuple(text for text, _ in graded),
        levels=tuple(level for _, level in graded),
    )
