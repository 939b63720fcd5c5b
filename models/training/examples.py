"""Training examples: what a model is shown and what it should write."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from models.comparison import JudgeImage, LabeledComparison, Position
from models.judgement import ANSWER_END, verdict_prefix, write_judgement, write_rubric
from models.neutralise import Neutraliser
from models.prompts import FilledPrompt, Layout, Prompts
from models.rubric import Rubric
from models.toyworld import ToyCase, teacher_rubric
from models.toyworld.phrasing import NAMES
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
        label: the verdict, where there are hints.
        hints: texts of the prompt or the answer at whose end the verdict can be known, each in a
            piece of text of its own.
    """

    system: str
    user: tuple[str | JudgeImage, ...]
    answer: tuple[str, ...]
    scene: Scene | None = None
    label: Position | None = None
    hints: tuple[str, ...] = ()

    @property
    def evaluation_is_empty(self) -> bool:
        """Whether the verdict is asked for at once."""
        return any(verdict_prefix(None) in piece for piece in self.answer)

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
        rubric_given: share of a judge's examples with the rubric in the prompt.
        vague, misweighted: share of teacher rubrics with that fault.
        unstated: share of given rubrics that leave what the image shows to their reader.
    """

    empty_evaluation: float = 0.3
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
    at_once = rng.random() < mixture.empty_evaluation
    if given:
        if case.stratum == "rubric" and rng.random() < 0.5:
            case = case.with_priority_reversed()
        case = case.with_rubric_varied(rng, stated=rng.random() >= mixture.unstated)
    else:
        rng.random()  # of no use any more: without it a seed would give other examples
        case = case.with_rubric(
            teacher_rubric(case, rng, vague=mixture.vague, misweighted=mixture.misweighted)
        )
    layout: Layout = "rubric_given" if given else "write_rubric"
    prompt = prompts[layout].fill(
        case.labeled().comparison, neutralise, case.rubric if given else None
    )
    evaluation = "" if at_once else neutralise(case.evaluation).text
    if given:
        example = _supervised(prompt, None, evaluation, case.label)
        return replace(example, label=case.label, hints=_said(case))
    example = _supervised(prompt, case.rubric, evaluation, case.label)
    if case.rubric.justification != case.justification:
        return example  # a teacher who is vague, or weighs the wrong way round, hints at nothing
    return replace(example, label=case.label, hints=(case.justification.removesuffix("."),))


def _said(case: ToyCase) -> tuple[str, ...]:
    """Each response as the toy prompts show it, as far as what it claims of the heavier matter.

    To its end where the two claim the same: it is something after it that tells them apart.
    """
    former, latter = case.claims
    beginnings = case.responses
    if former != latter:
        beginnings = (_until(former, case.responses[0]), _until(latter, case.responses[1]))
    return tuple(f"{name}: {said}" for name, said in zip(NAMES, beginnings, strict=True))


def _until(claim: str, response: str) -> str:
    """The beginning of a response; all of it where the claim is not said, or said twice."""
    before, found, after = response.partition(claim)
    return before + found if found and claim not in after else response


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
    at_once = rng.random() < mixture.empty_evaluation
    if case.stratum == "rubric" and rng.random() < 0.5:
        case = case.with_priority_reversed()
    case = case.with_rubric_varied(rng, stated=rng.random() >= mixture.unstated)
    prompt = prompts["proxy"].fill(case.labeled().comparison, neutralise, case.rubric)
    evaluation = "" if at_once else neutralise(case.evaluation).text
    example = _supervised(prompt, None, evaluation, case.label)
    standard = case.priorities[0].standard
    if not (case.first_decides and standard in case.rubric.text):
        return example
    return replace(example, label=case.label, hints=(standard,))


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
    at_once = rng.random() < mixture.empty_evaluation
    layout: Layout = "proxy" if is_proxy else "rubric_given" if given else "write_rubric"
    # A teacher may quote a candidate: what stands for a control token must not become one here.
    rubric = Rubric(
        neutralise(record.teacher.rubric).text,
        neutralise(record.teacher.justification).text if record.teacher.justification else None,
    )
    prompt = prompts[layout].fill(labeled.comparison, neutralise, rubric if given else None)
    evaluation = "" if at_once else neutralise(record.teacher.evaluation).text
    return _supervised(prompt, None if given else rubric, evaluation, labeled.label)


def _supervised(
    prompt: FilledPrompt, rubric: Rubric | None, evaluation: str, label: Position
) -> Example:
    """Everything is learned; but not to leave out an evaluation.

    At verdict depth the service writes ``<eval></eval>`` itself. A model that learned to choose it
    would now and then skip its evaluation when it is asked for one.

    Args:
        prompt: the question.
        rubric: to be written; None where it stands in the prompt.
        evaluation: to be written; empty asks for the verdict at once.
        label: the verdict.
    """
    if evaluation:
        return Example(prompt.system, prompt.user, ("", write_judgement(rubric, evaluation, label)))
    written = f"{write_rubric(rubric)}\n" if rubric is not None else ""
    answer = ("", written, verdict_prefix(None), f"{label}{ANSWER_END}")
    return Example(prompt.system, prompt.user, answer)
