"""What a small network practises before and beside judging: to see, to compare, to decide."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from models.comparison import JudgeImage, Position
from models.judgement import ANSWER_END, verdict_prefix, write_rubric
from models.neutralise import Neutraliser
from models.prompts import Prompts
from models.rubric import Rubric
from models.toyworld import ToyCase
from models.toyworld.aspects import Fact, finding
from models.toyworld.looking import random_facts
from models.toyworld.phrasing import NAMES, STATEMENTS
from models.toyworld.scene import Scene, draw
from models.training.examples import Example

LOOK_INSTRUCTION = "Say what the image shows."
_DECIDES = re.compile(r"\{(rubric|response_1|response_2)\}")


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


def verdict_example(
    case: ToyCase, prompts: Prompts, neutralise: Neutraliser, rng: random.Random, frame: float
) -> Example:
    """A verdict at once, by a rubric that says what is right: nothing to look at, nothing to write.

    Asked for it in a whole prompt, a network this small stays at chance for as long as we
    waited (100,000s of examples); with a fact and two responses alone it learns it soon. So what
    stands around those grows: headings, question, instructions, names and weights of criteria,
    the second criterion, the justification.

    Args:
        case: its image is left out.
        prompts: of the role; one of them is used.
        neutralise: as in serving.
        rng: chooses what is left out.
        frame: how much of all that stands at most, 0 nothing, 1 all. How much it is differs
            from example to example, so that what is learned does not hang on places.
    """
    share = rng.random() * frame

    def kept() -> bool:
        return rng.random() < share

    layout = rng.choice(sorted(prompts))
    written = layout == "write_rubric"
    if not written:
        if case.stratum == "rubric" and rng.random() < 0.5:
            case = case.with_priority_reversed()
        case = case.with_rubric_varied(rng)
    rubric = _thinned_rubric(case, kept)
    comparison = replace(case.labeled().comparison, images=())
    prompt = (
        prompts[layout]
        .thinned(lambda line: _DECIDES.search(line) is not None or kept())
        .fill(comparison, neutralise, None if written else rubric)
    )
    system = prompt.system if kept() else LOOK_INSTRUCTION
    asked = "".join(part for part in prompt.user if isinstance(part, str)).strip("\n")
    given = verdict_prefix(None)
    if written:
        given = f"{write_rubric(rubric) if kept() else rubric.text}\n{given}"
    if not kept():  # in the answer, where facts were looked for and responses compared
        asked, given = "", f"{asked}\n{given}"
    return Example(system, (asked,), ("", "", given, f"{case.label}{ANSWER_END}"))


def _thinned_rubric(case: ToyCase, kept: Callable[[], bool]) -> Rubric:
    """The case's, but maybe without the lighter criterion, the name and weight, the justification.

    What is left still decides.
    """
    rubric = case.rubric
    lines = rubric.text.split("\n")
    if case.first_decides and not kept():
        weights = [criterion.weight for criterion in rubric.criteria]
        lines = [lines[weights.index(max(weights))]]
        if not kept():
            lines = [re.sub(r"^\d+\. [^:]*: ", "", line) for line in lines]
    return Rubric("\n".join(lines), rubric.justification if kept() else None)


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
