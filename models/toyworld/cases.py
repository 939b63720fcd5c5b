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
from models.toyworld.aspects import ASPECTS, Aspect, Planner, find_places, finding
from models.toyworld.phrasing import (
    INSTRUCTIONS,
    NAMES,
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
class Matter:
    """One thing that a rubric weighs.

    Attributes:
        topic: what an asker calls it.
        standard: what a right response says or does, as a rubric states it.
        seen: whether the image settles that.
    """

    topic: str
    standard: str
    seen: bool = True

    def criterion(self, *, stated: bool) -> str:
        """What a rubric says of it; unstated, whoever reads the rubric has to look."""
        return self.standard if stated or not self.seen else "as in the image"


Findings = tuple[tuple[str, ...], tuple[str, ...]]
"""Of each response, about the matters in their order; there may be fewer than matters."""

_RELEVANCE = Matter("relevance", "what was asked", seen=False)
_BREVITY = Matter("brevity", "nothing needless", seen=False)


@dataclass(frozen=True, slots=True)
class ToyCase:
    """A labeled comparison about a scene, with what a perfect judge would write.

    Attributes:
        priorities: the two matters that the rubric weighs, the heavier one first. In the
            rubric stratum it decides.
        findings: of each response, about the matters in that order.
    """

    family: str
    stratum: Stratum
    scene: Scene
    question: str
    responses: tuple[str, str]
    label: Position
    rubric: Rubric
    priorities: tuple[Matter, ...]
    findings: Findings

    @property
    def evaluation(self) -> str:
        """What comes first, what the image shows that the rubric does not say, the findings."""
        seen = [
            m.standard for m in self.priorities if m.seen and m.standard not in self.rubric.text
        ]
        found = [
            f"{name}: {response}\n{', '.join(findings)}"
            for name, response, findings in zip(NAMES, self.responses, self.findings, strict=True)
        ]
        return "\n".join([f"first: {self.priorities[0].topic}", *seen, *found])

    @property
    def justification(self) -> str:
        """Where the responses part first, what each says or does there, and what is right there."""
        return _justification(self.priorities, self.findings, self.label)

    @property
    def claims(self) -> tuple[str, str]:
        """What each response claims, or does, of the heavier matter."""
        matter = self.priorities[0]
        former, latter = (_claimed(matter, findings[0]) for findings in self.findings)
        return former, latter

    @property
    def first_decides(self) -> bool:
        """Whether the heavier matter alone tells the responses apart."""
        former, latter = (findings[0].rsplit(": ")[-1] for findings in self.findings)
        return former != latter

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

    def with_rubric_varied(self, rng: random.Random, *, stated: bool = True) -> ToyCase:
        """The same case under a rubric of other weights, its criteria in any order.

        It is to be given, and what is given is the text alone: it has no justification.

        Args:
            rng: draws weights and order.
            stated: say what the image shows; otherwise whoever reads the rubric has to look.
        """
        weight, heavier_first = rng.choice((60, 70, 80)), rng.random() < 0.5
        rubric = _rubric(self.priorities, None, weight, heavier_first=heavier_first, stated=stated)
        return self.with_rubric(rubric)

    def with_priority_reversed(self) -> ToyCase:
        """The same pair under a rubric that puts the other matter first, against the question.

        Raises:
            ValueError: the case is not of the rubric stratum.
        """
        if self.stratum != "rubric":
            raise ValueError("only a rubric-decided case has a second priority")
        priorities = self.priorities[::-1]
        findings = (self.findings[0][::-1], self.findings[1][::-1])
        label = other(self.label)
        return replace(
            self,
            label=label,
            priorities=priorities,
            findings=findings,
            rubric=_rubric(priorities, _justification(priorities, findings, label)),
        )


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
        return case.with_priority_reversed().rubric
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
        sides = [_Side(say(claim), (_finding(claim, aspect),)) for claim in aspect.claims]
        return self._case(family, self._ask(aspect), sides, (aspect, _RELEVANCE))

    def _instructed(self) -> ToyCase | None:
        """Image stratum: an instruction that both responses keep, or both ignore."""
        aspect, wish = self._short_aspect()
        kept = self.rng.random() < 0.5
        sides = [self._formed(claim, wish, kept, aspect) for claim in aspect.claims]
        question = f"{self._ask(aspect)} {self._instruct(wish)}"
        return self._case("instruction", question, sides, (aspect, _form(wish)))

    def _two_matters(self) -> ToyCase | None:
        """Rubric stratum: two questions, each response right about one."""
        first = self.planner.plan(self._family(_COMPOSED))
        second = self.planner.plan(self.rng.choice([f for f in _COMPOSED if f != first.family]))
        asked = [first, second] if self.rng.random() < 0.5 else [second, first]
        say = {aspect.family: self._say(aspect) for aspect in asked}
        sides: list[_Side] = []
        for right in (first, second):
            claims = {a.family: a.claims[0 if a is right else 1] for a in asked}
            text = " ".join(say[a.family](claims[a.family]) for a in asked)
            found = tuple(_finding(claims[a.family], a) for a in (first, second))
            sides.append(_Side(text, found))
        topics = (TOPICS[first.family], TOPICS[second.family])
        question = f"{self._ask(asked[0])} {self._ask(asked[1])} {self._prefer(topics)}"
        return self._case(first.family, question, sides, (first, second))

    def _form_or_fact(self) -> ToyCase | None:
        """Rubric stratum: correct in the wrong form, against wrong in the right form."""
        aspect, wish = self._short_aspect()
        right, wrong = aspect.claims
        sides = [
            self._formed(right, wish, False, aspect),
            self._formed(wrong, wish, True, aspect),
        ]
        weighed = (aspect, _form(wish))
        if self.rng.random() < 0.5:
            weighed = weighed[::-1]
            sides = [_Side(side.text, side.findings[::-1]) for side in sides[::-1]]
        topics = (_topic(weighed[0]), _topic(weighed[1]))
        question = f"{self._ask(aspect)} {self._instruct(wish)} {self._prefer(topics)}"
        return self._case("instruction", question, sides, weighed)

    def _ignored_instruction(self) -> ToyCase | None:
        aspect, wish = self._short_aspect()
        sides = [self._formed(aspect.truth, wish, kept, aspect) for kept in (True, False)]
        question = f"{self._ask(aspect)} {self._instruct(wish)}"
        return self._case("instruction", question, sides, (aspect, _form(wish)))

    def _padded(self) -> ToyCase | None:
        aspect = self.planner.plan(self._family(ASPECTS))
        text = self._say(aspect)(aspect.truth)
        found = _finding(aspect.truth, aspect)
        sides = [
            _Side(text, (found, "short")),
            _Side(f"{text} {self.rng.choice(NEEDLESS)}", (found, "long")),
        ]
        return self._case(aspect.family, self._ask(aspect), sides, (aspect, _BREVITY))

    def _off_topic(self) -> ToyCase | None:
        aspect = self.planner.plan(self._family(_COMPOSED))
        away = self.planner.plan(self.rng.choice([f for f in _COMPOSED if f != aspect.family]))
        sides = [
            _Side(self._say(aspect)(aspect.truth), (_finding(aspect.truth, aspect),)),
            _Side(self._say(away)(away.truth), (f"{TOPICS[away.family]} {away.truth}: not asked",)),
        ]
        return self._case(
            aspect.family, self._ask(aspect), sides, (aspect, _RELEVANCE), also_shown=(away,)
        )

    def _case(
        self,
        family: str,
        question: str,
        sides: list[_Side],
        weighed: tuple[Aspect | Matter, ...],
        also_shown: tuple[Aspect, ...] = (),
    ) -> ToyCase | None:
        """Puts the better side, which comes first in `sides`, at a random place."""
        aspects = [a for a in weighed if isinstance(a, Aspect)]
        scene = self.planner.scene([*aspects, *also_shown])
        if scene is None:
            return None
        label: Position = 1 if self.rng.random() < 0.5 else 2
        if label == 2:
            sides = sides[::-1]
        matters = tuple(w if isinstance(w, Matter) else _matter(w, scene) for w in weighed)
        findings = (sides[0].findings, sides[1].findings)
        return ToyCase(
            family=family,
            stratum=self.stratum,
            scene=scene,
            question=question,
            responses=(sides[0].text, sides[1].text),
            label=label,
            rubric=_rubric(matters, _justification(matters, findings, label)),
            priorities=matters,
            findings=findings,
        )

    def _short_aspect(self) -> tuple[Aspect, str]:
        return self.planner.plan(self.rng.choice(_SHORT)), self.rng.choice(list(INSTRUCTIONS))

    def _ask(self, aspect: Aspect) -> str:
        template = QUESTIONS[aspect.family].pick(self.rng, held_out=self.new_words)
        return template.format(**aspect.names)

    def _instruct(self, wish: str) -> str:
        return INSTRUCTIONS[wish].pick(self.rng, held_out=self.new_words)

    def _prefer(self, topics: tuple[str, str]) -> str:
        template = PRIORITIES.pick(self.rng, held_out=self.new_words)
        return template.format(first=topics[0], second=topics[1])

    def _say(self, aspect: Aspect) -> Callable[[str], str]:
        return self.rng.choice(STATEMENTS[aspect.family]).format

    def _formed(self, claim: str, wish: str, kept: bool, aspect: Aspect) -> _Side:
        """A claim in the form that was wished for, or in the other one."""
        (form,) = [other for other in INSTRUCTIONS if (other == wish) is kept]
        text = claim if form == "one word" else self._say(aspect)(claim)
        return _Side(text, (_finding(claim, aspect), finding("instruction", form, wish)))


@dataclass(frozen=True, slots=True)
class _Side:
    """A response and what a judge finds about it, one finding a matter."""

    text: str
    findings: tuple[str, ...]


def _matter(aspect: Aspect, scene: Scene) -> Matter:
    fact = aspect.look(scene)
    assert fact is not None  # the scene was drawn to show it
    return Matter(TOPICS[aspect.family], fact.text)


def _form(wish: str) -> Matter:
    return Matter(TOPICS["instruction"], wish, seen=False)


def _topic(weighed: Aspect | Matter) -> str:
    return weighed.topic if isinstance(weighed, Matter) else TOPICS[weighed.family]


def _finding(claim: str, aspect: Aspect) -> str:
    return finding(aspect.family, claim, aspect.truth)


def _rubric(
    matters: tuple[Matter, ...],
    justification: str | None,
    weight: int = 70,
    *,
    heavier_first: bool = True,
    stated: bool = True,
) -> Rubric:
    """The first matter weighs most, wherever it stands."""
    weighed = list(zip(matters, (weight, 100 - weight), strict=True))
    text = "\n".join(
        f"{n}. {m.topic.capitalize()} ({share}%): {m.criterion(stated=stated)}."
        for n, (m, share) in enumerate(weighed if heavier_first else weighed[::-1], start=1)
    )
    return Rubric(text, justification)


def _justification(matters: tuple[Matter, ...], findings: Findings, label: Position) -> str:
    """Where the responses part first, what each says or does there, and what is right there."""
    for matter, *sides in zip(matters, *findings, strict=False):
        former, latter = claims = [_claimed(matter, finding) for finding in sides]
        if former == latter:
            continue
        right = claims[label - 1]
        if matter.topic == TOPICS["description"]:
            claims = [_gone_through(finding, matter.standard) for finding in sides]
            right = NAMES[label - 1]
        said = ", ".join(f"{name} {claim}" for name, claim in zip(NAMES, claims, strict=True))
        return f"They differ in {matter.topic}: {said}. Right is {right}."
    raise ValueError("the responses do not differ")


def _claimed(matter: Matter, finding: str) -> str:
    claim = finding.partition(", is ")[0].removesuffix(": not asked")
    return claim.removeprefix(f"{matter.topic} ")


def _gone_through(finding: str, everything: str) -> str:
    """``small red star top A, large blue circle nowhere, rest no``: where what is described is.

    One look at a time: that two lists differ, and where, is seen late by a small network.
    """
    claimed = finding.removeprefix(f"{TOPICS['description']} ").partition(", is ")[0]
    things = claimed.split(", ")
    places = find_places(things, everything)
    marks = [f"{thing} {place}" for thing, place in zip(things, places, strict=True)]
    left_out = len(things) < len(everything.split(", "))
    return ", ".join(marks + ["rest no"] * left_out)
