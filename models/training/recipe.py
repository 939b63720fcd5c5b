"""Recipes: one TOML file says everything that a job depends on."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from models.pictures import DEFAULT_MOST_PIXELS
from models.release import RELEASE_NAME
from models.toyworld import FAMILIES, STRATA
from models.training.data.distil import DistilOptions
from models.training.data.merging import PrepareOptions
from models.training.data.split import SplitOptions
from models.training.errors import RecipeInvalid
from models.training.rewards import AGGREGATIONS

RECIPES_DIR = Path(__file__).parent / "recipes"
"""The recipes that ship; each can be named without its folder and ending."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Launch(_Part):
    """How many processes a job is spread over.

    Attributes:
        accelerate: a configuration file of accelerate beside the recipe; None runs one process.
        processes: per node.
    """

    accelerate: str | None = None
    processes: int = Field(default=1, ge=1)


class Watch(_Part):
    """When a run is stopped early.

    Attributes:
        diverged_above: stop when the smoothed loss exceeds its lowest value by this factor.
        patience_steps: for as many logged steps in a row.
    """

    diverged_above: float = Field(default=4.0, gt=1)
    patience_steps: int = Field(default=5, ge=1)


class Muon(_Part):
    """Hidden matrices learn by Muon, at the trainer's own learning rate.

    Attributes:
        adamw_learning_rate: of embeddings, biases and norms.
    """

    adamw_learning_rate: float = Field(gt=0)


class ExampleSource(_Part):
    """Where supervised examples come from.

    Attributes:
        source: ``toyworld`` draws cases without end; ``records`` reads judged records.
        path: the record file (`records` only).
        prompts: folder of prompt files; None takes the default ones.
        examples: how many are drawn (`toyworld` only).
        seed: of the drawing.
        empty_evaluation: share that is asked for a verdict at once (verdict depth).
        rubric_given: share that is given the rubric.
        vague, misweighted: share of teacher rubrics with that fault (`toyworld` only).
        unstated: share of given rubrics that leave the facts to their reader (`toyworld` only).
        facts: share that is facts about scenes instead, with responses about them to judge, to
            keep the eyes open and to practise depth verdict (`toyworld` only).
        facts_each: how many are tried about one scene.
        favour: share of the cases drawn from one stratum or family alone, by its name, over those
            that it has among all (`toyworld` only).
        most_pixels: larger pictures are shrunk to it, as serving does (`records` only).
    """

    source: Literal["toyworld", "records"]
    path: Path | None = None
    prompts: Path | None = None
    examples: int = Field(default=10_000, ge=1)
    seed: int = 0
    empty_evaluation: float = Field(default=0.3, ge=0, le=1)
    rubric_given: float = Field(default=0.35, ge=0, le=1)
    vague: float = Field(default=0.15, ge=0, le=1)
    misweighted: float = Field(default=0.15, ge=0, le=1)
    unstated: float = Field(default=0.3, ge=0, le=1)
    facts: float = Field(default=0.0, ge=0, le=1)
    facts_each: int = Field(default=12, ge=1)
    favour: dict[str, float] = {}
    most_pixels: int = Field(default=DEFAULT_MOST_PIXELS, ge=784)

    @model_validator(mode="after")
    def _shares_leave_room(self) -> Self:
        unknown = sorted(self.favour.keys() - {*STRATA, *FAMILIES})
        if unknown:
            raise ValueError(
                f"favour: there is no {', '.join(unknown)}; strata are {', '.join(STRATA)}, "
                f"families {', '.join(FAMILIES)}"
            )
        if min(self.favour.values(), default=0) < 0 or sum(self.favour.values()) > 1:
            raise ValueError("favour: shares must be 0 or more and add up to no more than 1")
        return self


class _Trained(_Part):
    model: str = Field(description="a folder of an earlier job, or a hub id")
    run: Path = Field(description="checkpoints, logs, plots and the result go here")
    launch: Launch = Launch()
    watch: Watch = Watch()
    train: dict[str, Any] = Field(
        default={}, description="arguments of the trainer, by its own names"
    )


class LookRecipe(_Trained):
    """Teach the embedded network to see; stands in for pretraining."""

    job: Literal["look"]
    model: str = "none"
    prompts: Path
    scenes: int = Field(ge=1)
    facts: int = Field(default=12, ge=1, description="facts asked about one scene")
    seed: int = 0
    probe_weight: float = 3.0
    label_weight: float = Field(default=1.0, gt=0)
    muon: Muon | None = None


class SftRecipe(_Trained):
    """Supervised fine-tuning of a judge or a proxy."""

    job: Literal["sft"]
    role: Literal["judge", "proxy"]
    data: ExampleSource
    label_weight: float = Field(default=1.0, gt=0)
    hint_weight: float = Field(
        default=0.0,
        ge=0,
        description="of what layers in between are asked about verdicts (`toyworld` only)",
    )
    muon: Muon | None = None

    @model_validator(mode="after")
    def _hints_are_drawn(self) -> Self:
        if self.hint_weight and self.data.source != "toyworld":
            raise ValueError("hint_weight is for data.source toyworld: records have no hints")
        return self


class TaskSource(_Part):
    """Where rollout prompts come from; ``records`` need a label and no teacher.

    Attributes:
        most_pixels: larger pictures are shrunk to it, as serving does (`records` only).
    """

    source: Literal["toyworld", "records"]
    path: Path | None = None
    prompts: Path | None = None
    prompts_drawn: int = Field(default=1_000, ge=1)
    seed: int = 0
    most_pixels: int = Field(default=DEFAULT_MOST_PIXELS, ge=784)


class GrpoRecipe(_Trained):
    """Reinforcement learning of a judge or a proxy.

    Attributes:
        aggregation: a name of `models.training.rewards.AGGREGATIONS`.
        proxy_url: a running service whose release has a proxy.
        proxy_release: or a release folder with a proxy, served here for the length of the run.
    """

    job: Literal["grpo"]
    role: Literal["judge", "proxy"]
    data: TaskSource
    aggregation: str = "implicit"
    proxy_url: str | None = None
    proxy_release: Path | None = None
    proxy_concurrency: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _proxy_where_it_counts(self) -> Self:
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation is one of {', '.join(AGGREGATIONS)}")
        ways = (self.proxy_url is not None) + (self.proxy_release is not None)
        if ways != (self.aggregation != "none"):
            raise ValueError(
                "give proxy_url or proxy_release, one of them, with every aggregation but none"
            )
        if self.role == "proxy" and self.aggregation != "none":
            raise ValueError(
                "role proxy: its rollouts hold no rubric to ask about; aggregation is none"
            )
        if self.proxy_release is not None and self.launch.processes > 1:
            raise ValueError("proxy_release is for one process: start a service, give proxy_url")
        return self


class ExportRecipe(_Part):
    """Making a release of trained models: convert, calibrate, evaluate, write its card.

    Attributes:
        judge, proxy: finished models; a PEFT adapter is merged into its base.
        prompts: folder of the prompt files that they were trained with; None: those of
            `models.prompts`.
        run: the release is built here.
        publish: and then put here, unless it is worse than what is there.
        base_model: what the weights were trained from, for the card.
        stages: run folders to list in the card, in their order.
    """

    job: Literal["export"]
    name: str = Field(pattern=RELEASE_NAME)
    purpose: Literal["demo", "production"]
    base_model: str
    judge: Path
    proxy: Path | None = None
    prompts: Path | None = None
    run: Path
    publish: Path | None = None
    stages: tuple[Path, ...] = ()
    context_tokens: int = Field(default=16_384, ge=256)
    judgement_tokens: int = Field(default=2048, ge=16)
    rubric_tokens: int = Field(default=768, ge=8)
    proxy_tokens: int = Field(default=2048, ge=16)
    most_images: int = Field(default=8, ge=0)
    most_pixels: int = Field(default=DEFAULT_MOST_PIXELS, ge=784)
    calibration_cases: int = Field(default=2000, ge=0, description="0 leaves probabilities raw")
    evaluation_cases: int = Field(default=2000, ge=0)
    seed: int = 0


class PrepareRecipe(_Part):
    """Reading, filtering and writing preference data."""

    job: Literal["prepare"]
    prepare: PrepareOptions


class DistilRecipe(_Part):
    """Having a teacher judge the records of a prepared file."""

    job: Literal["distil"]
    records: Path
    distil: DistilOptions

    @model_validator(mode="after")
    def _images_are_found(self) -> Self:
        if self.distil.output.parent != self.records.parent:
            raise ValueError(
                "distil.output: put it beside records, to whose folder image paths are relative"
            )
        return self


class SplitRecipe(_Part):
    """Dividing judged records into the training sets."""

    job: Literal["split"]
    split: SplitOptions


TrainRecipe = LookRecipe | SftRecipe | GrpoRecipe
Recipe = Annotated[
    PrepareRecipe | DistilRecipe | SplitRecipe | TrainRecipe | ExportRecipe,
    Field(discriminator="job"),
]
_READER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def shipped_recipes() -> dict[str, str]:
    """The recipes that ship, with the first line of each."""
    return {
        path.stem: path.read_text("utf-8").partition("\n")[0].lstrip("# ")
        for path in sorted(RECIPES_DIR.glob("*.toml"), key=lambda path: path.stem)
    }


def read_recipe(name: str, settings: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe by path, or by the name of one that ships.

    Args:
        name: ``recipes/mine.toml`` or ``tiny-sft-judge``.
        settings: ``key.path=value`` pairs put over the file; values are TOML, and no value takes
            the key away.

    Raises:
        RecipeInvalid: there is no such file, or a field is wrong.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES_DIR / f"{name}.toml"
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
    except OSError as cause:
        known = ", ".join(shipped_recipes())
        raise RecipeInvalid(f"no recipe {name!r}; those that ship are {known}") from cause
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise RecipeInvalid(f"{path}: {cause}") from cause
    for setting in settings:
        _put(fields, setting)
    try:
        return _READER.validate_python(fields)
    except ValidationError as cause:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}" for e in cause.errors()
        )
        raise RecipeInvalid(f"{path}: {problems}") from cause


def _put(fields: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    if not equals:
        raise RecipeInvalid(f"--set {setting}: expected key=value")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table: Any = fields.setdefault(parent, {})
        if not isinstance(table, dict):
            raise RecipeInvalid(f"--set {setting}: {parent} is a value and no table")
        fields = cast(dict[str, Any], table)
    if not value.strip():
        fields.pop(last, None)
        return
    try:
        fields[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        fields[last] = value
