"""Training examples: what a model is shown and what it should write."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from models.comparison import JudgeImage, LabeledComparison, Position
from models.judgement import ANSWER_END, verdict_prefix, write_judgement, write_rubric
from models.neutralise import Neutraliser
from models.prompts import FilledPrompt, Layout, Prompts
from models.rubric import Rubric
from models.toyworld import ToyCase, teacher_rubric
from models.toyworld.scene import Scene
from models.training.data.records import JudgedRecord


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised turn.

    Attributes:
        system: the instructions.
        user: text and pictures in reading order.
        answer: in pieces, alternately given and to be learned: the loss is on every
            second piece. An answer to be learned whole is ``("", answer)``.
        scene: what the picture shows, where it is known and asked for.
    """

    system: str
    user: tuple[str | JudgeImage, ...]
    answer: tuple[str, ...]
    scene: Scene | None = None

    @property
    def length(self) -> int:
        """Characters of text; pictures are not counted."""
        texts = (self.system, *self.user, *self.answer)
        return sum(len(part) for part in texts if isinstance(part, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """In which forms a case becomes an example.

    Attributes:
        empty_evaluation: share asked for the verdict at once (verdict depth).
        shortened: share of those that keep the end of their evaluation, cut at any word: from its
            end backwards a judge learns to do without it (arXiv 2405.14838), where a small one
            does not learn to do without all of it at once.
        rubric_given: share of a judge's examples with the rubric in the prompt.
        vague, misweighted: share of teacher rubrics with that fault.
        unstated: share of given rubrics that leave what the image shows to their reader.
    """

    empty_evaluation: float = 0.3
    shortened: float = 0.0
    rubric_given: float = 0.35
    vague: float = 0.15
    misweighted: float = 0.15
    unstated: float = 0.3


def judge_example(
    case: ToyCase,
    prompts: Prompts,
    neutralise: Neutraliser,
    rng: random.Random,
    mixture: Mixture,
) -> Example:
    """The case in one of the forms a judge is asked in.

    A rubric that is given outranks the question; one that the judge writes itself is the
    teacher's, faults included.
    """
    given = rng.random() < mixture.rubric_given
    left = _left_of_evaluation(rng, mixture)
    if given:
        if case.stratum == "rubric" and rng.random() < 0.5:
            case = case.with_priority_reversed()
        case = case.with_rubric_varied(rng, stated=rng.random() >= mixture.unstated)
    else:
        case = case.with_rubric(
            teacher_rubric(case, rng, vague=mixture.vague, misweighted=mixture.misweighted)
        )
    layout: Layout = "rubric_given" if given else "write_rubric"
    prompt = prompts[layout].fill(
        case.labeled().comparison, neutralise, case.rubric if given else None
    )
    rubric = None if given else case.rubric
    return _supervised(prompt, rubric, neutralise(case.evaluation).text, left, case.label)


def proxy_example(
    case: ToyCase,
    prompts: Prompts,
    neutralise: Neutraliser,
    rng: random.Random,
    mixture: Mixture,
) -> Example:
    """The case as a proxy is asked: the rubric alone says what counts.

    Where the rubric decides, half of the rubrics contradict the question, so that nothing but
    the rubric predicts the verdict.
    """
    left = _left_of_evaluation(rng, mixture)
    if case.stratum == "rubric" and rng.random() < 0.5:
        case = case.with_priority_reversed()
    case = case.with_rubric_varied(rng, stated=rng.random() >= mixture.unstated)
    prompt = prompts["proxy"].fill(case.labeled().comparison, neutralise, case.rubric)
    return _supervised(prompt, None, neutralise(case.evaluation).text, left, case.label)


def record_example(
    record: JudgedRecord,
    labeled: LabeledComparison,
    prompts: Prompts,
    neutralise: Neutraliser,
    rng: random.Random,
    mixture: Mixture,
) -> Example:
    """A pair that a teacher judged, in one of the forms that the prompts' role is asked in.

    The verdict to learn is the label; records whose teacher missed it belong to another set.
    """
    is_proxy = "proxy" in prompts
    given = is_proxy or rng.random() < mixture.rubric_given
    left = _left_of_evaluation(rng, mixture)
    layout: Layout = "proxy" if is_proxy else "rubric_given" if given else "write_rubric"
    # A teacher may quote a candidate: what stands for a control token must not become one here.
    rubric = Rubric(
        neutralise(record.teacher.rubric).text,
        neutralise(record.teacher.justification).text if record.teacher.justification else None,
    )
    prompt = prompts[layout].fill(labeled.comparison, neutralise, rubric if given else None)
    evaluation = neutralise(record.teacher.evaluation).text
    return _supervised(prompt, None if given else rubric, evaluation, left, labeled.label)


def _left_of_evaluation(rng: random.Random, mixture: Mixture) -> float:
    """How much of an evaluation stays, from its end: 1 is all of it, 0 nothing."""
    empty, shortened, left = rng.random(), rng.random(), rng.random()
    if empty >= mixture.empty_evaluation:
        return 1.0
    return left if shortened < mixture.shortened else 0.0


def _supervised(
    prompt: FilledPrompt, rubric: Rubric | None, evaluation: str, left: float, label: Position
) -> Example:
    """Everything is learned; but not to leave out an evaluation or the beginning of one.

    At verdict depth the service writes ``<eval></eval>`` itself. A model that learned to choose it
    would now and then skip its evaluation when it is asked for one.
    """
    if left == 1:
        return Example(prompt.system, prompt.user, ("", write_judgement(rubric, evaluation, label)))
    words = re.findall(r"\s*\S+", evaluation)
    kept = words[len(words) - int(left * len(words)) :]
    given = f"<eval>\n{kept[0].lstrip()}" if kept else verdict_prefix(None)
    learned = f"{''.join(kept[1:])}\n</eval>\n<answer>" if kept else ""
    written = f"{write_rubric(rubric)}\n" if rubric is not None else ""
    answer = ("", written, given, f"{learned}{label}{ANSWER_END}")
    return Example(prompt.system, prompt.user, answer)
