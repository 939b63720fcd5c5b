"""Training jobs: what they run is understood, and their nodes find each other."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.drills.site import free_port
from models.training.recipe import read_recipe, shipped_recipes

from .conftest import ROOT, Rendered, example, render


def jobs(rendered: Rendered) -> dict[str, Any]:
    found = [pod for pod in rendered.pods if pod.component == "training"]
    return {pod.owner["metadata"]["name"].split("-")[1]: pod for pod in found}


def settings_of(arguments: list[str]) -> tuple[str, ...]:
    return tuple(arguments[at + 1] for at, argument in enumerate(arguments) if argument == "--set")


def test_shipped_recipes_take_what_is_put_over_them() -> None:
    checked = 0
    for pod in jobs(example("training")).values():
        arguments = pod.container("training")["args"]
        (recipe,) = [one for one in arguments if one in shipped_recipes() or one.endswith(".toml")]
        if not recipe.endswith(".toml"):
            read_recipe(recipe, settings_of(arguments))
            checked += 1
    assert checked == 2


def test_the_recipe_gets_values_as_they_were_written() -> None:
    over = {"train.learning_rate": 1e-05, "train.max_steps": 3, "run": "runs/mine"}
    job = {"name": "sft", "recipe": "paper-sft-judge", "claim": "work", "set": over}
    arguments = jobs(render({"training": {"jobs": [job]}}))["sft"].container("training")["args"]
    recipe = read_recipe("paper-sft-judge", settings_of(arguments))
    assert recipe.train["learning_rate"] == 1e-05
    assert recipe.train["max_steps"] == 3
    assert recipe.run == Path("runs/mine")


def test_a_job_has_a_gpu_for_each_process() -> None:
    found = jobs(example("training"))
    limits = {name: pod.container("training")["resources"]["limits"] for name, pod in found.items()}
    gpus = {name: limit.get("nvidia.com/gpu") for name, limit in limits.items()}
    assert gpus == {"prepare": None, "distil": None, "sft": "4", "grpo": "8", "export": "1"}


def test_nodes_of_one_job_find_the_first_by_its_name() -> None:
    rendered = example("training")
    pod = jobs(rendered)["grpo"]
    name = pod.owner["metadata"]["name"]
    assert pod.owner["spec"]["completionMode"] == "Indexed"
    assert pod.owner["spec"]["completions"] == pod.owner["spec"]["parallelism"] == 2
    assert pod.spec["subdomain"] == name
    variables = {one["name"]: one.get("value") for one in pod.container("training")["env"]}
    assert variables["FIRST_NODE"] == f"{name}-0.{name}"
    service = rendered.one("Service", name)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= pod.labels.items()


def test_torchrun_is_given_each_nodes_number(tmp_path: Path) -> None:
    """The command of the manifest, with torchrun put in place of what it would start."""
    pod = jobs(example("training"))["grpo"]
    container = pod.container("training")
    (tmp_path / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "torchrun").chmod(0o755)
    variables = {one["name"]: one["value"] for one in container["env"]}
    variables |= {"JOB_COMPLETION_INDEX": "1", "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        container["args"], env=variables, capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    options = dict(itertools.pairwise(said))
    assert options["--nnodes"] == "2"
    assert options["--node-rank"] == "1"
    assert options["--nproc-per-node"] == "8"
    assert options["--master-addr"] == variables["FIRST_NODE"]
    module = said.index("-m")
    assert said[module : module + 3] == ["-m", "models.training", "paper-grpo"]
    assert settings_of(said) == settings_of(container["args"])


def test_torchrun_knows_these_options() -> None:
    """By its source: asking it takes torch."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.submodule_search_locations is not None
    known = (Path(torch.submodule_search_locations[0]) / "distributed" / "run.py").read_text()
    arguments = [
        argument
        for pod in jobs(example("training")).values()
        for argument in pod.container("training")["args"]
        if "torchrun" in pod.container("training")["args"] or "torchrun" in argument
    ]
    options = set(re.findall(r"--[a-z-]+", " ".join(arguments))) - {"--set"}
    assert len(options) == 6
    for option in options:
        assert f'"{option}"' in known, option


def test_another_recipe_is_another_job() -> None:
    def name(**changes: Any) -> str:
        job = {"name": "sft", "recipe": "paper-sft-judge", "claim": "work"} | changes
        (found,) = render({"training": {"jobs": [job]}}).names("Job")
        return found

    assert name() == name() != name(set={"train.seed": 1})
    assert name() != name(nodes=2)


@pytest.mark.parametrize("nodes", [1, 2])
def test_training_writes_to_its_volumes_alone(nodes: int) -> None:
    job = {"name": "sft", "recipe": "r.toml", "claim": "work", "nodes": nodes}
    container = jobs(render({"training": {"jobs": [job]}}))["sft"].container("training")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/training", "/tmp", "/cache", "/dev/shm"}
    assert container["workingDir"] == "/training"


def test_two_nodes_train_one_model(tmp_path: Path) -> None:
    """The manifest's command for each node, with torchrun itself, on two nodes that are here."""
    recipe = tmp_path / "sft.toml"
    recipe.write_text(_TINY_SFT.format(model=ROOT / "models/releases/tiny/judge"))
    job = {"name": "sft", "recipe": str(recipe), "claim": "work", "nodes": 2, "processes": 1}
    job["set"] = {"run": str(tmp_path / "run")}
    container = jobs(render({"training": {"jobs": [job]}}))["sft"].container("training")
    variables = {one["name"]: one["value"] for one in container["env"]}
    variables |= {"FIRST_NODE": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    variables |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # Another port than the manifest's, so that no other process of this machine has it.
    arguments = [one.replace("29500", str(free_port())) for one in container["args"]]
    nodes = [
        subprocess.Popen(
            arguments,
            env={**os.environ, **variables, "JOB_COMPLETION_INDEX": str(index)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [node.communicate(timeout=900)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "step 3/3" in said[0]
    assert "finished:" in said[0]
    assert "step" not in said[1]
    run = tmp_path / "run"
    assert (run / "model" / "model.safetensors").is_file()
    assert json.loads((run / "run.json").read_text())["steps"] == 3
    assert len(list((run / "logs").iterdir())) == 1


# 24 examples in steps of 4 for each of two processes.
_TINY_SFT = """\
job = "sft"
role = "judge"
model = "{model}"
run = "put over"

[data]
source = "toyworld"
prompts = "models/training/tiny/prompts"
examples = 24

[train]
use_cpu = true
per_device_train_batch_size = 4
num_train_epochs = 1
learning_rate = 1e-5
bf16 = false
logging_steps = 1
save_steps = 2
gradient_checkpointing = false
"""
