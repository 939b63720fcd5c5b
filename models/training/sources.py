"""From a recipe's data source to examples and tasks, each made from its index alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from models.comparison import Comparison, JudgeImage, LabeledComparison
from models.neutralise import Neutraliser
from models.pictures import shrink
from models.prompts import DEFAULT_DIR, JUDGE_LAYOUTS, PROXY_LAYOUTS, Prompts, read_prompts
from models.toyworld import STRATA, CaseOptions, Stratum, ToyCase, make_case
from models.training.data.files import RecordsInvalid, read_records
from models.training.data.images import ImageRefused, load_image
from models.training.data.records import JudgedRecord, PreferenceRecord
from models.training.errors import RecipeInvalid
from models.training.examples import (
    Example,
    Mixture,
    judge_example,
    proxy_example,
    record_example,
)
from models.training.grpo import Task, proxy_task, toy_task
from models.training.practice import look_example
from models.training.recipe import ExampleSource, TaskSource

Role = Literal["judge", "proxy"]
R = TypeVar("R", bound=PreferenceRecord)


def prompts_of(role: Role, folder: Path | None) -> Prompts:
    """The prompt files of a role; the default ones without a folder.

    Raises:
        ReleaseInvalid: one is missing or malformed.
    """
    return read_prompts(folder or DEFAULT_DIR, JUDGE_LAYOUTS if role == "judge" else PROXY_LAYOUTS)


def example_maker(
    source: ExampleSource, role: Role, control_tokens: Iterable[str]
) -> tuple[int, Callable[[int], Example]]:
    """How many examples there are, and what makes one of its index.

    Raises:
        RecipeInvalid: there are no records, or one of them is malformed.
    """
    prompts, neutralise = prompts_of(role, source.prompts), Neutraliser(control_tokens)
    mixture = Mixture(
        empty_evaluation=source.empty_evaluation,
        rubric_given=source.rubric_given,
        vague=source.vague,
        misweighted=source.misweighted,
        unstated=source.unstated,
    )
    seed = f"{source.seed}/{role}"
    if source.source == "toyworld":
        write = judge_example if role == "judge" else proxy_example

        def drawn(index: int) -> Example:
            rng = random.Random(f"{seed}/{index}")
            form, case = rng.random(), _drawn_case(rng, source.favour)
            if form < source.facts:
                return look_example(case.scene, rng, source.facts_each, judged=True)
            return write(case, prompts, neutralise, rng, mixture)

        return source.examples, drawn
    records, folder = _read(source.path, JudgedRecord)

    def recorded(index: int) -> Example:
        rng, record = random.Random(f"{seed}/{index}"), records[index]
        labeled = _labeled(record, folder, source.most_pixels)
        return record_example(record, labeled, prompts, neutralise, rng, mixture)

    return len(records), recorded


def _drawn_case(rng: random.Random, favour: dict[str, float]) -> ToyCase:
    kinds = [*favour, ""]  # the last one stands for all of them
    kind = rng.choices(kinds, [*favour.values(), 1 - sum(favour.values())])[0]
    strata: dict[str, Stratum] = {stratum: stratum for stratum in STRATA}
    if kind in strata:
        return make_case(rng, CaseOptions(stratum=strata[kind]))
    return make_case(rng, CaseOptions(family=kind or None))


def task_maker(
    source: TaskSource, role: Role, control_tokens: Iterable[str]
) -> tuple[int, Callable[[int], Task]]:
    """How many rollout prompts there are, and what makes one of its index.

    Raises:
        RecipeInvalid: there are no records, or one of them is malformed.
    """
    prompts, neutralise = prompts_of(role, source.prompts), Neutraliser(control_tokens)
    if source.source == "toyworld":

        def drawn(index: int) -> Task:
            rng = random.Random(f"{source.seed}/tasks/{role}/{index}")
            return toy_task(make_case(rng), prompts, neutralise, rng)

        return source.prompts_drawn, drawn
    if role == "proxy":
        judged, folder = _read(source.path, JudgedRecord)
        return len(judged), lambda index: proxy_task(
            _labeled(judged[index], folder, source.most_pixels),
            judged[index].teacher.as_rubric(),
            prompts,
            neutralise,
        )
    records, folder = _read_either(source.path)

    def recorded(index: int) -> Task:
        labeled = _labeled(records[index], folder, source.most_pixels)
        return Task(prompts["write_rubric"].fill(labeled.comparison, neutralise), labeled)

    return len(records), recorded


def _read(path: Path | None, kind: type[R]) -> tuple[list[R], Path]:
    if path is None:
        raise RecipeInvalid("data.source is records: data.path must name their file")
    try:
        records = list(read_records(path, kind))
    except (RecordsInvalid, OSError) as cause:
        raise RecipeInvalid(f"data.path: {cause}") from cause
    if not records:
        raise RecipeInvalid(f"data.path: {path} holds no records")
    return records, path.parent


def _read_either(path: Path | None) -> tuple[Sequence[PreferenceRecord], Path]:
    """Records with or without a teacher: a judge's tasks need none, but the splits have one."""
    try:
        return _read(path, JudgedRecord)
    except RecipeInvalid as not_judged:
        try:
            return _read(path, PreferenceRecord)
        except RecipeInvalid as not_records:
            raise (not_records if _begins_unjudged(path) else not_judged) from None


def _begins_unjudged(path: Path | None) -> bool:
    """Whether the first record has no teacher: then it is such a file, with a fault further on."""
    try:
        return path is not None and next(read_records(path, PreferenceRecord), None) is not None
    except (RecordsInvalid, OSError):
        return False


def _labeled(record: PreferenceRecord, folder: Path, most_pixels: int) -> LabeledComparison:
    try:
        images = tuple(
            JudgeImage(
                shrink(load_image(ref, folder), most_pixels), identity=f"{record.id}/{place}"
            )
            for place, ref in enumerate(record.images)
        )
    except (ImageRefused, OSError) as cause:
        # Of one argument: it may have to travel out of a process that loads data.
        raise RecipeInvalid(f"record {record.id}: a picture cannot be used: {cause}") from cause
    return LabeledComparison(Comparison(record.question, record.responses, images), record.label)
