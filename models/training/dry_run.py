"""What a recipe would do: its argument objects are built, its commands printed, nothing is run."""

from __future__ import annotations

import shlex
from pathlib import Path

from models.training.errors import RecipeInvalid
from models.training.recipe import (
    RECIPES_DIR,
    GrpoRecipe,
    LookRecipe,
    Recipe,
    SftRecipe,
)


def dry_run(recipe: Recipe, name: str, settings: tuple[str, ...] = ()) -> str:
    """The resolved recipe, and the command for one node and, where it can be spread, for two.

    Raises:
        RecipeInvalid: the trainer does not take the arguments, or the launcher's file is missing.
    """
    lines = [recipe.model_dump_json(indent=2)]
    arguments = [name, *(part for one in settings for part in ("--set", one))]
    if isinstance(recipe, LookRecipe | SftRecipe | GrpoRecipe):
        _build_arguments(recipe)
    if isinstance(recipe, LookRecipe | SftRecipe) or (
        isinstance(recipe, GrpoRecipe) and recipe.proxy_release is None
    ):
        for nodes in (1, 2):
            lines += ["", f"# {nodes} node{'s' if nodes > 1 else ''}"]
            lines += [launch_command(recipe, arguments, nodes)]
    else:
        lines += ["", "# 1 node; this job is not spread over more", _plain(arguments)]
    return "\n".join(lines)


def launch_command(
    recipe: LookRecipe | SftRecipe | GrpoRecipe, arguments: list[str], nodes: int
) -> str:
    """The shell command that runs the job; on each node, with its number in ``$NODE``.

    Raises:
        RecipeInvalid: the launcher's configuration file is missing.
    """
    launch = recipe.launch
    if launch.accelerate is None and nodes * launch.processes == 1:
        return _plain(arguments)
    command = ["accelerate", "launch"]
    if launch.accelerate is not None:
        command += ["--config_file", str(_accelerate_file(launch.accelerate))]
    command += ["--num_machines", str(nodes), "--num_processes", str(nodes * launch.processes)]
    rank = ""
    if nodes > 1:
        rank = ' --machine_rank "$NODE" --main_process_ip "$FIRST_NODE" --main_process_port 29500'
    return f"{shlex.join(command)}{rank} -m models.training {shlex.join(arguments)}"


def _accelerate_file(name: str) -> Path:
    path = Path(name) if "/" in name else RECIPES_DIR / "accelerate" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (RECIPES_DIR / "accelerate").glob("*.yaml")))
        raise RecipeInvalid(f"launch.accelerate: there is no {path}; those that ship are {known}")
    return path


def _build_arguments(recipe: LookRecipe | SftRecipe | GrpoRecipe) -> None:
    import torch

    from models.training.jobs import grpo_arguments, sft_arguments

    if not torch.cuda.is_available():
        # Half precision is refused where there is no GPU; everything else is checked all the same.
        recipe = recipe.model_copy(update={"train": {**recipe.train, "use_cpu": True}})
    if isinstance(recipe, GrpoRecipe):
        grpo_arguments(recipe)
    else:
        sft_arguments(recipe)


def _plain(arguments: list[str]) -> str:
    return f"python -m models.training {shlex.join(arguments)}"
