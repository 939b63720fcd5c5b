"""The model card of a release: what it is, how it was made, what was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.training.recipe import ExportRecipe

_DEMO = """\
**For demonstration only.** It has only ever seen scenes drawn by `models/toyworld` (coloured shapes
and digits on a 4×4 grid) and short questions about them. What it says about anything else is
well-formed and worthless. Its purpose is `demo`, which every answer repeats.
"""

_SHARES = {
    "accuracy": "accuracy",
    "accuracy_image_decided": "— image-decided",
    "accuracy_rubric_decided": "— rubric-decided",
    "accuracy_text_decided": "— text-decided",
    "accuracy_heldout_combinations": "accuracy on combinations and phrasings never trained on",
    "verdict_depth_accuracy": "accuracy at depth `verdict`",
    "blank_image_accuracy_image_decided": "image-decided with a blank picture (chance is 50%)",
    "readable": "readable",
    "readable_without_structured_output": "readable without structured output",
    "order_consistent": "the two orders agree",
}
_FIGURES = {
    "ece": "expected calibration error",
    "auroc": "AUROC of confidence for correctness",
    "accuracy_at_80_coverage": "accuracy on the surest 80%",
}


def write_card(recipe: ExportRecipe, folder: Path, metrics: dict[str, Any] | None) -> None:
    """Writes ``README.md`` into the release, the curves of its stages beside it."""
    parts = [f"# {recipe.name}\n"]
    if recipe.purpose == "demo":
        parts.append(_DEMO)
    parts.append("\n".join(_roles(recipe, folder)) + "\n")
    if recipe.stages:
        parts.append("## How it was made\n")
        parts.append("\n".join(_stages(recipe, folder)) + "\n")
    if metrics is not None:
        parts.append("## Measured through the served endpoint\n")
        parts.append("\n".join(_measured(recipe, metrics)) + "\n")
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _roles(recipe: ExportRecipe, folder: Path) -> Iterator[str]:
    yield "| role | base | weights |"
    yield "|---|---|---|"
    for role in ("judge", "proxy"):
        if (folder / role).is_dir():
            size = sum(p.stat().st_size for p in (folder / role).glob("*.safetensors"))
            yield f"| {role} | {recipe.base_model} | {size / 1e6:,.1f} MB |"


def _stages(recipe: ExportRecipe, folder: Path) -> Iterator[str]:
    yield "| stage | steps | seed | wall time, minutes | starts | curves |"
    yield "|---|---|---|---|---|---|"
    for run in recipe.stages:
        known = json.loads((run / "run.json").read_text("utf-8"))
        asked = json.loads((run / "recipe.json").read_text("utf-8"))
        curves = ""
        if (run / "curves.png").exists():
            shutil.copy(run / "curves.png", folder / f"curves-{run.name}.png")
            curves = f"[curves](curves-{run.name}.png)"
        seed = asked["train"].get("seed", "")
        yield (
            f"| {run.name} | {known['steps']} | {seed} | {known['wall_s'] / 60:.0f} "
            f"| {known['starts']} | {curves} |"
        )
    versions = json.loads((recipe.stages[-1] / "run.json").read_text("utf-8"))["versions"]
    yield ""
    yield "With " + ", ".join(f"{name} {number}" for name, number in versions.items()) + "."


def _measured(recipe: ExportRecipe, metrics: dict[str, Any]) -> Iterator[str]:
    yield f"On {metrics['n']} fresh drawn cases (seed {recipe.seed}), each abstention"
    yield "counting as not right; intervals are 95% (Wilson).\n"
    yield "| | |"
    yield "|---|---|"
    for name, title in _SHARES.items():
        if metrics.get(name) is None:
            continue
        low_high = metrics["intervals_95"].get(name)
        interval = f" ({low_high[0]:.1%} to {low_high[1]:.1%})" if low_high else ""
        yield f"| {title} | {metrics[name]:.1%}{interval} |"
    for name, title in _FIGURES.items():
        if metrics.get(name) is not None:
            yield f"| {title} | {metrics[name]:.3f} |"
    yield ""
    yield "| family | in distribution | held out |"
    yield "|---|---|---|"
    held_out = metrics["accuracy_heldout_by_family"]
    for family, share in metrics["accuracy_by_family"].items():
        other = f"{held_out[family]:.1%}" if family in held_out else ""
        yield f"| {family} | {share:.1%} | {other} |"
    calibration = recipe.run / "calibration.json"
    if calibration.exists():
        yield ""
        yield "Calibration before and after, on passes it was not fitted to:\n"
        yield "| depth | order | error before | after | AUROC before | after |"
        yield "|---|---|---|---|---|---|"
        for depth, orders in json.loads(calibration.read_text("utf-8")).items():
            for order, found in orders.items():
                columns = ("ece_before", "ece_after", "auroc_before", "auroc_after")
                figures = " | ".join(str(found[column]) for column in columns)
                yield f"| {depth} | {order} | {figures} |"
