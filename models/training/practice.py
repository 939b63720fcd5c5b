"""What a small network practises before and beside judging: to see, to check, to compare."""

from __future__ import annotations

import random

from models.comparison import JudgeImage, Position
from models.judgement import ANSWER_END, verdict_prefix
from models.toyworld.aspects import Fact, finding
from models.toyworld.looking import random_facts
from models.toyworld.phrasing import NAMES, STATEMENTS
from models.toyworld.scene import Scene, draw
from models.training.examples import Example

LOOK_INSTRUCTION = "Say what the image shows."


def look_example(scene: Scene, rng: random.Random, facts: int, *, judged: bool = False) -> Example:
    """Facts about a scene, one a line; the loss is on what is seen, not on what is looked for.

    Args:
        scene: to be drawn.
        rng: chooses the facts.
        facts: how many are tried.
        judged: responses about each fact are judged: one statement is checked, or of two, of
            which one is right, the better is named without an evaluation, as at verdict depth.
    """
    pieces: list[str] = []  # an even number at a time: given and learned stay in step
    for fact in random_facts(scene, rng, facts):
        line = [*fact.pieces, "\n", ""]
        if not judged or fact.family is None:
            pieces += line
        elif rng.random() < 0.5:
            pieces += [*line, *_checked(fact, rng)]
        else:
            responses, verdict = _compared(fact, rng)
            pieces += [*line, *responses] if rng.random() < 0.5 else [*responses, *line]
            pieces += verdict
    picture = JudgeImage(draw(scene), identity="")
    return Example(LOOK_INSTRUCTION, (picture,), tuple(pieces), scene)


def _checked(fact: Fact, rng: random.Random) -> list[str]:
    """A statement that is right every second time, and what a judge finds about it."""
    assert fact.family is not None
    claim = fact.answer if rng.random() < 0.5 else _wrong(fact, rng)
    statement = rng.choice(STATEMENTS[fact.family]).format(claim)
    return [f"{statement}\n", f"{finding(fact.family, claim, fact.answer)}\n"]


def _compared(fact: Fact, rng: random.Random) -> tuple[list[str], list[str]]:
    """Two responses, and which of them is right."""
    assert fact.family is not None
    say = rng.choice(STATEMENTS[fact.family]).format
    claims = [fact.answer, _wrong(fact, rng)]
    label: Position = 1 if rng.random() < 0.5 else 2
    if label == 2:
        claims.reverse()
    said = "\n".join(f"{name}: {say(claim)}" for name, claim in zip(NAMES, claims, strict=True))
    return [f"{said}\n", ""], [verdict_prefix(None), f"{label}{ANSWER_END}\n"]


def _wrong(fact: Fact, rng: random.Random) -> str:
    return rng.choice([claim for claim in fact.alternatives if claim != fact.answer])
