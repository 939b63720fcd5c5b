"""From trained models to a release: convert, calibrate, evaluate, write the card, publish."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.benchmarks.toyworld import Run, evaluate, fresh_cases, judge_all
from models.calibration import Calibration
from models.prompts import DEFAULT_DIR, JUDGE_LAYOUTS, PROXY_LAYOUTS, read_prompts
from models.release import load_release
from models.training.calibrate import calibrate_depth
from models.training.card import write_card
from models.training.errors import RecipeInvalid, WorseThanBefore
from models.training.recipe import ExportRecipe
from models.training.run_folder import RunFolder
from models.training.served import served
from models.training.weights import save_weights

_CONCURRENCY = 64


def export(recipe: ExportRecipe) -> Path:
    """Builds a release in ``recipe.run / "release"`` and publishes it; returns its last place.

    Each step is skipped when its result is there, so that a killed export goes on.

    Raises:
        RecipeInvalid: a model is not finished, or another recipe's export is in the folder.
        ReleaseInvalid: a prompt file is missing or malformed.
        WorseThanBefore: the published release judges better; it stays.
    """
    RunFolder(recipe.run).claim(recipe)
    folder = recipe.run / "release"
    _assemble(recipe, folder)
    work = recipe.run / "service"
    if recipe.calibration_cases and not (recipe.run / "calibration.json").exists():
        _calibrate(recipe, folder, work)
    metrics: dict[str, Any] | None = None
    if recipe.evaluation_cases:
        metrics = _evaluated(recipe, folder, work)
    write_card(recipe, folder, metrics)
    return folder if recipe.publish is None else _publish(recipe, folder, metrics)


def _assemble(recipe: ExportRecipe, folder: Path) -> None:
    """Makes the folder, anew where the models are others than it was made of."""
    models = {"judge": recipe.judge} | ({"proxy": recipe.proxy} if recipe.proxy else {})
    made_of = {role: _digest(model) for role, model in models.items() if model.is_dir()}
    kept = recipe.run / "made-of.json"
    if (folder / "release.toml").exists():
        known = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        if all(known.get(role) == digest for role, digest in made_of.items()):
            return
        for measured in ("calibration.json", "metrics.json"):
            (recipe.run / measured).unlink(missing_ok=True)
    _check_finished(models, recipe.stages)
    layouts = (*JUDGE_LAYOUTS, *(PROXY_LAYOUTS if recipe.proxy else ()))
    prompts = recipe.prompts or DEFAULT_DIR
    read_prompts(prompts, layouts)
    shutil.rmtree(folder, ignore_errors=True)
    for role, model in models.items():
        save_weights(model, folder / role)
    (folder / "prompts").mkdir(parents=True)
    for layout in layouts:
        shutil.copy(prompts / f"{layout}.txt", folder / "prompts")
    _write_json(kept, made_of)
    _write_config(recipe, folder, Calibration())


def _check_finished(models: dict[str, Path], stages: Sequence[Path]) -> None:
    for role, model in models.items():
        if not model.is_dir():
            raise RecipeInvalid(f"{role}: {model} is not there: run the job that makes it first")
    for stage in stages:
        if not (stage / "run.json").is_file() or not (stage / "model").is_dir():
            raise RecipeInvalid(f"stages: {stage} is no finished run: it has no model or run.json")


def _digest(model: Path) -> str:
    """Of all files of a model."""
    digest = hashlib.sha256()
    for file in sorted(model.iterdir()):
        if file.is_file():
            with file.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
            digest.update(f"{file.name} {found}\n".encode())
    return digest.hexdigest()


def _write_config(recipe: ExportRecipe, folder: Path, calibration: Calibration) -> None:
    lines = [
        f'name = "{recipe.name}"',
        f'purpose = "{recipe.purpose}"',
        f"base_model = {_toml_string(recipe.base_model)}",
        f"context_tokens = {recipe.context_tokens}",
        "",
        "[sampling]",
        f"judgement_tokens = {recipe.judgement_tokens}",
        f"rubric_tokens = {recipe.rubric_tokens}",
        "",
        "[images]",
        f"maximum = {recipe.most_images}",
        f"most_pixels = {recipe.most_pixels}",
    ]
    if recipe.proxy is not None:
        lines += ["", "[proxy]", f"tokens = {recipe.proxy_tokens}"]
    for depth in ("full", "verdict"):
        for order in ("given", "swapped"):
            platt = calibration.at(depth, order)
            lines += ["", f"[calibration.{depth}.{order}]"]
            lines += [f"{name} = {value}" for name, value in platt.model_dump().items()]
    partial = folder / "release.partial"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(folder / "release.toml")


def _calibrate(recipe: ExportRecipe, folder: Path, work: Path) -> None:
    """Fits every depth and order on cases that neither training nor evaluation uses."""
    _write_config(recipe, folder, Calibration())  # what is fitted must be raw
    cases = fresh_cases(recipe.calibration_cases, recipe.seed + 1_000_000)
    fitted: dict[str, Any] = {}
    report: dict[str, Any] = {}
    with served(folder, work) as url:
        for depth in ("full", "verdict"):
            run = Run(f"calibration, {depth}", order="both", depth=depth)
            judged = asyncio.run(judge_all(cases, url, run, _CONCURRENCY))
            fitted[depth], report[depth] = calibrate_depth(judged)
    _write_config(recipe, folder, Calibration(**fitted))
    _write_json(recipe.run / "calibration.json", report)


def _evaluated(recipe: ExportRecipe, folder: Path, work: Path) -> dict[str, Any]:
    """The figures of this very release, measured through a service."""
    path = recipe.run / "metrics.json"
    fingerprint = load_release(str(folder)).fingerprint
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if known["fingerprint"] == fingerprint and known["n"] == recipe.evaluation_cases:
            return known
    with served(folder, work) as url:
        metrics = asyncio.run(evaluate(url, recipe.evaluation_cases, recipe.seed, _CONCURRENCY))
    metrics["readable_without_structured_output"] = _readable_unstructured(recipe, folder, work)
    _write_json(path, metrics)
    return metrics


def _readable_unstructured(recipe: ExportRecipe, folder: Path, work: Path) -> float:
    """The share of judgements that are readable when the engine does not enforce the grammar."""
    free = recipe.run / "unstructured"
    shutil.rmtree(free, ignore_errors=True)
    shutil.copytree(folder, free)
    config = free / "release.toml"
    config.write_text(f"structured_output = false\n{config.read_text('utf-8')}", encoding="utf-8")
    cases = fresh_cases(recipe.evaluation_cases, recipe.seed)
    with served(free, work) as url:
        judged = asyncio.run(judge_all(cases, url, Run("without the grammar"), _CONCURRENCY))
    shutil.rmtree(free)
    return round(sum(j.preferred is not None for j in judged) / len(judged), 4)


def _publish(recipe: ExportRecipe, folder: Path, metrics: dict[str, Any] | None) -> Path:
    """Puts the release in place of an older one, unless the older one is better."""
    assert recipe.publish is not None
    before = recipe.publish.with_name(f".{recipe.publish.name}.before")
    if before.exists() and not recipe.publish.exists():
        before.rename(recipe.publish)  # a kill came between the two renames below
    if metrics is not None:
        _write_json(folder / "metrics.json", metrics)
    _refuse_worse(recipe.publish, metrics)
    partial = recipe.publish.with_name(f".{recipe.publish.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    shutil.rmtree(before, ignore_errors=True)
    if recipe.publish.exists():
        recipe.publish.rename(before)
    partial.rename(recipe.publish)
    shutil.rmtree(before, ignore_errors=True)
    return recipe.publish


def _refuse_worse(published: Path, metrics: dict[str, Any] | None) -> None:
    known_file = published / "metrics.json"
    if not known_file.exists():
        return
    if metrics is None:
        raise WorseThanBefore(
            f"{published} was measured and this release was not: set evaluation_cases, or remove "
            f"{known_file} first."
        )
    known = json.loads(known_file.read_text("utf-8"))
    _, highest = metrics["intervals_95"]["accuracy"]
    problems = [
        f"{name} is {metrics[name]}, was {known[name]}"
        for name, worse in (
            ("accuracy", known["accuracy"] > highest),
            ("readable", metrics["readable"] < known["readable"] - 0.005),
        )
        if worse
    ]
    if problems:
        raise WorseThanBefore(
            f"{published} stays as it is: {'; '.join(problems)}. To replace it all the same, "
            f"remove {known_file} first."
        )


def _toml_string(text: str) -> str:
    # JSON's strings are TOML's, but for one control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_json(path: Path, value: dict[str, Any] | Sequence[Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
