"""From a recipe to the job that it asks for."""

from __future__ import annotations

from pathlib import Path

from models.training.recipe import (
    DistilRecipe,
    ExportRecipe,
    GrpoRecipe,
    LookRecipe,
    PrepareRecipe,
    Recipe,
    SftRecipe,
    SplitRecipe,
)


def run(recipe: Recipe, command: str = "") -> Path:
    """Runs the job and returns where its result is.

    Args:
        recipe: what to do.
        command: how it was asked for, for the data cards.

    Raises:
        ModelsError: something is wrong with the recipe, the data or the run; the message says
            what to do.
    """
    match recipe:
        case PrepareRecipe() | DistilRecipe() | SplitRecipe():
            return _data_job(recipe, command)
        case LookRecipe() | SftRecipe() | GrpoRecipe():
            return _training_job(recipe)
        case ExportRecipe():
            from models.training.export import export

            return export(recipe)


def _data_job(recipe: PrepareRecipe | DistilRecipe | SplitRecipe, command: str) -> Path:
    if isinstance(recipe, PrepareRecipe):
        from models.training.data.prepare import prepare

        return prepare(recipe.prepare, command=command).output
    if isinstance(recipe, SplitRecipe):
        from models.training.data.split import split_file

        splits = split_file(recipe.split, command=command)
        told = [f"{name}: {len(records)} records" for name, records in splits.sets.items()]
        print("\n".join([*told, *splits.notes]), flush=True)
        return recipe.split.judged.parent
    from models.training.data.distil import distil_blocking
    from models.training.data.files import read_records
    from models.training.data.images import load_image
    from models.training.data.records import PreferenceRecord

    folder = recipe.records.parent
    records = list(read_records(recipe.records, PreferenceRecord))
    distil_blocking(records, recipe.distil, lambda ref: load_image(ref, folder))
    return recipe.distil.output


def _training_job(recipe: LookRecipe | SftRecipe | GrpoRecipe) -> Path:
    from models.training import jobs
    from models.training.grpo import ServedProxy

    match recipe:
        case LookRecipe():
            return jobs.look(recipe)
        case SftRecipe():
            return jobs.sft(recipe)
        case GrpoRecipe():
            if recipe.proxy_release is None:
                return jobs.grpo(recipe)
            from models.training.served import served

            workspace = recipe.run / "service"
            with served(recipe.proxy_release, workspace, PRELOAD="judge,proxy") as url:
                return jobs.grpo(recipe, ServedProxy(url, recipe.proxy_concurrency))
