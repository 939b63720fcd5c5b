"""Questions about scenes, two responses each, and an oracle's judgement of them.

Three strata. *Image*: one response is right and only looking tells which. *Rubric*: each response
gets something wrong, and the asker's priority, said in the question, decides. *Text*: both are
right about the image and one ignores the instruction, pads, or answers something else.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from models.comparison import Comparison, JudgeImage, LabeledComparison, Position, other
from models.judgement import write_judgement
from models.rubric import Rubric
from models.toyworld.aspects import ASPECTS, Aspect, Planner, check_claim
from models.toyworld.phrasing import (
    CRITERIA,
    INSTRUCTIONS,
    NEEDLESS,
    PRIORITIES,
    QUESTIONS,
    STATEMENTS,
    TOPICS,
)
from models.toyworld.scene import Scene, draw

Stratum = Literal["image", "rubric", "text"]
STRATA: tuple[Stratum, ...] = ("image", "rubric", "text")
_SHARES: dict[Stratum, float] = {"image": 0.55, "rubric": 0.35, "text": 0.10}

FAMILIES = (*ASPECTS, "instruction")
"""The kinds of question. An instruction is put on top of a question about the scene."""

_SHORT = ("count", "colour", "existence", "digit")
"""Families whose claims are one word."""
_COMPOSED = tuple(family for family in ASPECTS if family != "description")
_FAMILIES: dict[Stratum, tuple[str, ...]] = {
    "image": FAMILIES,
    "rubric": (*_COMPOSED, "instruction"),
    "text": FAMILIES,
}


@dataclass(frozen=True, slots=True)
class CaseOptions:
    """Which cases are made.

    Attributes:
        stratum: None draws one.
        family: None draws one that the stratum has; a description is never one of two matters.
        held_out: combinations, and for half of the cases phrasings, that training never shows.
    """

    stratum: Stratum | None = None
    family: str | None = None
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class ToyCase:
    """A labeled comparison about a scene, with what a perfect judge would write.

    Attributes:
        priorities: the two matters that the rubric weighs, the heavier one first. In the
            rubric stratum it decides.
        evaluation: what the image shows, then a line for each response.
    """

    family: str
    stratum: Stratum
    scene: Scene
    question: str
    responses: tuple[str, str]
    label: Position
    rubric: Rubric
    evaluation: str
    priorities: tuple[_Matter, ...]

    def labeled(self) -> LabeledComparison:
        """The case as a judge receives it, drawing included."""
        picture = JudgeImage(draw(self.scene), identity=f"toy:{self.scene!r}")
        return LabeledComparison(Comparison(self.question, self.responses, (picture,)), self.label)

    def picture(self) -> Image.Image:
        """The drawing alone."""
        return draw(self.scene)

    def written(self, *, rubric_given: bool = False, evaluated: bool = True) -> str:
        """The perfect judge's answer, in the judgement grammar."""
        return write_judgement(
            None if rubric_given else self.rubric, self.evaluation if evaluated else "", self.label
        )

    def with_rubric(self, rubric: Rubric) -> ToyCase:
        """The same case with another rubric written; its verdict stays."""
        return replace(self, rubric=rubric)

    def with_priority_reversed(self, rng: random.Random) -> ToyCase:
        """The same pair under a rubric that puts the other matter first, against the question.

        Raises:
            ValueError: the case is not of the rubric stratum.
        """
        if self.stratum != "rubric":
            raise ValueError("only a rubric-decided case has a second priority")
        priorities = self.priorities[::-1]
        return replace(
            self,
            label=other(self.label),
            priorities=priorities,
            rubric=_good_rubric(priorities, rng),
            evaluation=_priority_line(priorities) + self.evaluation.split("\n", 1)[1],
        )


@dataclass(frozen=True, slots=True)
class _Matter:
    """One thing a rubric may weigh."""

    topic: str
    criterion: str
    met_when: str = "as in the image."


_FORM = _Matter("form", "Form", "as it was asked for.")
_RELEVANCE = _Matter("relevance", "Relevance", "what was asked.")
_BREVITY = _Matter("brevity", "Brevity", "nothing needless.")


def make_case(rng: random.Random, options: CaseOptions | None = None) -> ToyCase:
    """A fresh case; the same `rng` state gives the same case.

    Raises:
        ValueError: there are no cases of that family, or none in that stratum.
    """
    options = options or CaseOptions()
    possible: list[Stratum] = [s for s in STRATA if options.family in (None, *_FAMILIES[s])]
    if options.stratum is not None:
        possible = [s for s in possible if s == options.stratum]
    if not possible:
        raise ValueError(
            f"no cases of stratum {options.stratum!r} and family {options.family!r}: strata are "
            f"{', '.join(STRATA)}, families {', '.join(FAMILIES)}"
        )
    stratum = rng.choices(possible, [_SHARES[s] for s in possible])[0]
    while (case := _Maker(rng, options, stratum).make()) is None:
        pass  # what was planned did not fit into one scene
    return case


def teacher_rubric(
    case: ToyCase, rng: random.Random, *, vague: float = 0.15, misweighted: float = 0.15
) -> Rubric:
    """The rubric of a teacher who is sometimes vague and sometimes weighs the wrong way round.

    Its verdict stays right, as with published teachers: the rubric alone would not lead there.
    """
    chance = rng.random()
    if chance < vague:
        text = "1. Quality (50%): a good response.\n2. Style (50%): reads well."
        return Rubric(text, "Good responses are good.")
    if chance < vague + misweighted and case.stratum == "rubric":
        return _good_rubric(case.priorities[::-1], rng)
    return case.rubric


class _Maker:
    """One attempt at one case."""

    def __init__(self, rng: random.Random, options: CaseOptions, stratum: Stratum) -> None:
        self.rng, self.options = rng, options
        self.stratum: Stratum = stratum
        self.planner = Planner(rng, held_out=options.held_out)
        self.new_words = options.held_out and rng.random() < 0.5

    def make(self) -> ToyCase | None:
        if self.stratum == "image":
            family = self.options.family or self.rng.choice(FAMILIES)
            return self._instructed() if family == "instruction" else self._plain(family)
        if self.stratum == "rubric":
            if self._wants("instruction", share=0.3):
                return self._form_or_fact()
            return self._two_matters()
        if self._wants("instruction", share=0.34):
            return self._ignored_instruction()
        padded = self.options.family == "description" or self.rng.random() < 0.5
        return self._padded() if padded else self._off_topic()

    def _wants(self, family: str, share: float) -> bool:
        if self.options.family is not None:
            return self.options.family == family
        return self.rng.random() < share

    def _family(self, among: tuple[str, ...]) -> str:
        return self.options.family if self.options.family in among else self.rng.choice(among)

    def _plain(self, family: str) -> ToyCase | None:
        """Image stratum: one question, one right claim."""
        aspect = self.planner.plan(family)
        say = self._say(aspect)
        sides = [(say(claim), f"says {_finding(claim, aspect)}") for claim in aspect.claims]
        return self._case(family, [aspect], self._ask(aspect), sides, (_matter(aspect), _RELEVANCE))

    def _instructed(self) -> ToyCase | None:
        """Image stratum: an instruction that both responses keep, or both ignore."""
        aspect, wish = self._short_aspect()
        kept = self.rng.random() < 0.5
        said = [self._in_form(claim, wish, kept, aspect) for claim in aspect.claims]
        form = _form(kept)
        sides = [
            (text, f"says {_finding(claim, aspect)}, {form}")
            for text, claim in zip(said, aspect.claims, strict=True)
        ]
        question = f"{self._ask(aspect)} {self._instruct(wish)}"
        return self._case("instruction", [aspect], question, sides, (_matter(aspect), _FORM))

    def _two_matters(self) -> ToyCase | None:
        """Rubric stratum: two questions, each response right about one."""
        first = self.planner.plan(self._family(_COMPOSED))
        second = self.planner.plan(self.rng.choice([f for f in _COMPOSED if f != first.family]))
        asked = [first, second] if self.rng.random() < 0.5 else [second, first]
        say = [self._say(aspect) for aspect in asked]
        sides: list[tuple[str, str]] = []
        for right in (first, second):
            claims = [a.claims[0 if a is right else 1] for a in asked]
            text = " ".join(speak(claim) for speak, claim in zip(say, claims, strict=True))
            found = [_finding(c, a) for c, a in zip(claims, asked, strict=True)]
            sides.append((text, f"says {', '.join(found)}"))
        matters = (_matter(first), _matter(second))
        question = f"{self._ask(asked[0])} {self._ask(asked[1])} {self._prefer(matters)}"
        return self._case(first.family, asked, question, sides, matters)

    def _form_or_fact(self) -> ToyCase | None:
        """Rubric stratum: correct in the wrong form, against wrong in the right form."""
        aspect, wish = self._short_aspect()
        right, wrong = aspect.claims
        fact = (
            self._in_form(right, wish, False, aspect),
            f"says {_finding(right, aspect)}, {_form(False)}",
        )
        form = (
            self._in_form(wrong, wish, True, aspect),
            f"says {_finding(wrong, aspect)}, {_form(True)}",
        )
        matters, sides = (_matter(aspect), _FORM), [fact, form]
        if self.rng.random() < 0.5:
            matters, sides = matters[::-1], sides[::-1]
        question = f"{self._ask(aspect)} {self._instruct(wish)} {self._prefer(matters)}"
        return self._case("instruction", [aspect], question, sides, matters)

    def _ignored_instruction(self) -> ToyCase | None:
        aspect, wish = self._short_aspect()
        sides = [
            (
                self._in_form(aspect.truth, wish, kept, aspect),
                f"says {_finding(aspect.truth, aspect)}, {_form(kept)}",
            )
            for kept in (True, False)
        ]
        question = f"{self._ask(aspect)} {self._instruct(wish)}"
        return self._case("instruction", [aspect], question, sides, (_matter(aspect), _FORM))

    def _padded(self) -> ToyCase | None:
        aspect = self.planner.plan(self._family(ASPECTS))
        text = self._say(aspect)(aspect.truth)
        finding = f"says {_finding(aspect.truth, aspect)}"
        sides = [
            (text, f"{finding}, short"),
            (f"{text} {self.rng.choice(NEEDLESS)}", f"{finding}, long"),
        ]
        matters = (_matter(aspect), _BREVITY)
        return self._case(aspect.family, [aspect], self._ask(aspect), sides, matters)

    def _off_topic(self) -> ToyCase | None:
        aspect = self.planner.plan(self._family(_COMPOSED))
        away = self.planner.plan(self.rng.choice([f for f in _COMPOSED if f != aspect.family]))
        sides = [
            (self._say(aspect)(aspect.truth), f"says {_finding(aspect.truth, aspect)}"),
            (self._say(away)(away.truth), f"says {away.truth}: not asked"),
        ]
        matters = (_matter(aspect), _RELEVANCE)
        return self._case(
            aspect.family, [aspect], self._ask(aspect), sides, matters, shown=[aspect, away]
        )

    def _case(
        self,
        family: str,
        aspects: list[Aspect],
        question: str,
        sides: list[tuple[str, str]],
        matters: tuple[_Matter, ...],
        shown: list[Aspect] | None = None,
    ) -> ToyCase | None:
        """Puts the better side, which comes first in `sides`, at a random place."""
        scene = self.planner.scene(shown or aspects)
        if scene is None:
            return None
        label: Position = 1 if self.rng.random() < 0.5 else 2
        if label == 2:
            sides = sides[::-1]
        facts = [fact.text for a in aspects if (fact := a.look(scene)) is not None]
        found = [f"response_{n} {finding}" for n, (_, finding) in enumerate(sides, start=1)]
        opening = _priority_line(matters) if self.stratum == "rubric" else ""
        return ToyCase(
            family=family,
            stratum=self.stratum,
            scene=scene,
            question=question,
            responses=(sides[0][0], sides[1][0]),
            label=label,
            rubric=_good_rubric(matters, self.rng),
            evaluation=opening + "\n".join([*facts, *found]),
            priorities=matters,
        )

    def _short_aspect(self) -> tuple[Aspect, str]:
        return self.planner.plan(self.rng.choice(_SHORT)), self.rng.choice(list(INSTRUCTIONS))

    def _ask(self, aspect: Aspect) -> str:
        template = QUESTIONS[aspect.family].pick(self.rng, held_out=self.new_words)
        return template.format(**aspect.names)

    def _instruct(self, wish: str) -> str:
        return INSTRUCTIONS[wish].pick(self.rng, held_out=self.new_words)

    def _prefer(self, matters: tuple[_Matter, ...]) -> str:
        template = PRIORITIES.pick(self.rng, held_out=self.new_words)
        return template.format(first=matters[0].topic, second=matters[1].topic)

    def _say(self, aspect: Aspect) -> Callable[[str], str]:
        return self.rng.choice(STATEMENTS[aspect.family]).format

    def _in_form(self, claim: str, wish: str, kept: bool, aspect: Aspect) -> str:
        return claim if (wish == "one word") is kept else self._say(aspect)(claim)


def _matter(aspect: Aspect) -> _Matter:
    return _Matter(TOPICS[aspect.family], CRITERIA[aspect.family].format(**aspect.names))


def _finding(claim: str, aspect: Aspect) -> str:
    return check_claim(claim, aspect.truth)


def _form(kept: bool) -> str:
    return "form kept" if kept else "form broken"


def _priority_line(matters: tuple[_Matter, ...]) -> str:
    return f"first: {matters[0].topic}\n"


def _good_rubric(matters: tuple[_Matter, ...], rng: random.Random) -> Rubric:
    """The first matter weighs most; one time in four it stands second all the same."""
    weight = rng.choice((60, 70, 80))
    weighed = list(zip(matters, (weight, 100 - weight), strict=True))
    if rng.random() < 0.25:
        weighed.reverse()
    text = "\n".join(
        f"{n}. {m.criterion} ({share}%): {m.met_when}"
        for n, (m, share) in enumerate(weighed, start=1)
    )
    return Rubric(text, f"The {matters[0].topic} is put first.")
