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
from models.training.data.split import SPLITS
from models.training.recipe import (
    DistilRecipe,
    ExportRecipe,
    GrpoRecipe,
    LookRecipe,
    PrepareRecipe,
    Recipe,
    SplitRecipe,
    read_recipe,
    shipped_recipes,
)

from .conftest import ROOT, Rendered, example, render


def jobs(rendered: Rendered) -> dict[str, Any]:
    found = [pod for pod in rendered.pods if pod.component == "training"]
    return {re.sub("^grm-|-[0-9a-f]{8}$", "", pod.owner["metadata"]["name"]): pod for pod in found}


def settings_of(arguments: list[str]) -> tuple[str, ...]:
    return tuple(arguments[at + 1] for at, argument in enumerate(arguments) if argument == "--set")


def recipes(rendered: Rendered) -> dict[str, Recipe]:
    found = {name: pod.container("training")["args"] for name, pod in jobs(rendered).items()}
    return {
        name: read_recipe(
            next(one for one in arguments if one in shipped_recipes()), settings_of(arguments)
        )
        for name, arguments in found.items()
    }


def test_jobs_of_the_example_make_a_release_one_after_the_other() -> None:
    """Each reads what jobs before it have written, or what the page says has to be there."""
    there = {Path("data/sets")}
    for name, recipe in recipes(example("training")).items():
        if isinstance(recipe, PrepareRecipe):
            reads = {source.path.parent for source in recipe.prepare.sources}
            writes = {recipe.prepare.output}
        elif isinstance(recipe, DistilRecipe):
            reads, writes = {recipe.records}, {recipe.distil.output}
        elif isinstance(recipe, SplitRecipe):
            reads = {recipe.split.judged}
            writes = {recipe.split.judged.with_name(f"{one}.jsonl") for one in SPLITS}
        elif isinstance(recipe, ExportRecipe):
            reads, writes = {recipe.judge, recipe.proxy, *recipe.stages}, {recipe.publish}
        else:
            assert not isinstance(recipe, LookRecipe)
            began = Path(recipe.model)
            reads = {recipe.data.path, *({began} if began.parts[0] == "runs" else ())}
            writes = {recipe.run, recipe.run / "model"}
        assert reads <= there, name
        there |= writes
    assert {Path("releases/paper-interim"), Path("releases/paper")} <= there


def test_the_first_job_alone_does_not_wait() -> None:
    found = {name: pod.owner["spec"]["suspend"] for name, pod in jobs(example("training")).items()}
    assert [name for name, waits in found.items() if not waits] == ["prepare"]


def test_a_job_that_is_let_go_is_the_same_job() -> None:
    def made(suspend: bool) -> Any:
        job = {"name": "sft", "recipe": "paper-sft-judge", "claim": "work", "suspend": suspend}
        defaults = {"suspend": True}
        (name,) = (rendered := render({"training": {"defaults": defaults, "jobs": [job]}})).names(
            "Job"
        )
        return name, rendered.one("Job", name)["spec"]["suspend"]

    (waiting, waits), (going, goes) = made(True), made(False)
    assert waiting == going
    assert (waits, goes) == (True, False)


def test_grpo_of_the_example_has_the_papers_batch_and_can_hear_its_proxy() -> None:
    rendered = example("training")
    pod, recipe = jobs(rendered)["grpo"], recipes(rendered)["grpo"]
    assert isinstance(recipe, GrpoRecipe)
    processes = 8 * pod.owner["spec"]["parallelism"]
    each = recipe.train["per_device_train_batch_size"] * processes
    assert each * recipe.train["gradient_accumulation_steps"] == 128 * 8
    assert each * recipe.train["steps_per_generation"] == 256 * 8
    variables = {one["name"]: one for one in pod.container("training")["env"]}
    assert "secretKeyRef" in variables["PROXY_GRM_API_KEY"]["valueFrom"]
    gateway = rendered.pod("gateway").container("gateway")
    (urls,) = [one["value"] for one in gateway["env"] if one["name"] == "PROXY_GRM_ENGINE_URLS"]
    assert "proxy=" in urls
    port = rendered.one("Service", "grm-gateway")["spec"]["ports"][0]["port"]
    assert recipe.proxy_url == f"http://grm-gateway:{port}"


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
    assert gpus == {
        "prepare": None,
        "distil": None,
        "split": None,
        "sft-proxy": "4",
        "sft": "4",
        "interim": None,
        "grpo": "8",
        "release": None,
    }


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
    variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
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


def test_training_puts_releases_where_gateways_read_them() -> None:
    rendered = example("training")
    training, gateway = jobs(rendered)["release"], rendered.pod("gateway")
    claims = [
        {
            mount["mountPath"]: volume["persistentVolumeClaim"]["claimName"]
            for mount in pod.containers[0]["volumeMounts"]
            for volume in pod.spec["volumes"]
            if volume["name"] == mount["name"] == "releases"
        }
        for pod in (training, gateway)
    ]
    assert claims == [{"/training/releases": "releases"}, {"/releases": "releases"}]


def test_what_is_put_over_a_recipe_may_be_any_text_and_take_a_key_away() -> None:
    over = {"run": "it's", "train.adam_beta1": 0.5, "train.bf16": None}
    job = {"name": "sft", "recipe": "paper-sft-judge", "claim": "work", "set": over}
    arguments = jobs(render({"training": {"jobs": [job]}}))["sft"].container("training")["args"]
    recipe = read_recipe("paper-sft-judge", settings_of(arguments))
    assert recipe.run == Path("it's")
    assert recipe.train["adam_beta1"] == 0.5
    assert "bf16" not in recipe.train


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
