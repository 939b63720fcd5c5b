from __future__ import annotations

import json
import re
import shlex

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from models.training.dry_run import dry_run, launch_command
from models.training.errors import RecipeInvalid
from models.training.recipe import (
    RECIPES_DIR,
    GrpoRecipe,
    Launch,
    LookRecipe,
    SftRecipe,
    read_recipe,
    shipped_recipes,
)

pytestmark = pytest.mark.usefixtures("jobs")

TRAINED = (LookRecipe, SftRecipe, GrpoRecipe)
ON_EACH_NODE = {"$NODE": "1", "$FIRST_NODE": "node-0"}
PROCESSES = {
    "paper-sft-judge": 4,
    "paper-sft-proxy": 4,
    "paper-proxy-rl": 8,
    "paper-grpo": 8,
    "tiny-look": 1,
    "tiny-sft-judge": 1,
    "tiny-settle": 1,
    "tiny-weigh": 1,
    "tiny-sft-proxy": 1,
}


def commands(printed):
    """What is printed under each heading, by the heading."""
    return dict(re.findall(r"^# (.+)\n(.+)$", printed, re.MULTILINE))


def parsed(command):
    """The words of a command, as accelerate itself reads them."""
    words = [ON_EACH_NODE.get(word, word) for word in shlex.split(command)]
    assert words[:2] == ["accelerate", "launch"]
    return launch_command_parser().parse_args(words[2:])


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_can_be_tried_dry(name):
    recipe = read_recipe(name)
    printed = dry_run(recipe, name)
    resolved, _ = json.JSONDecoder().raw_decode(printed)
    assert resolved == recipe.model_dump(mode="json")
    headings = list(commands(printed))
    if isinstance(recipe, TRAINED) and name != "tiny-grpo":
        assert headings == ["1 node", "2 nodes"]
    else:
        assert headings == ["1 node; this job is not spread over more"]
        assert printed.splitlines()[-1] == f"python -m models.training {name}"


@pytest.mark.parametrize(("name", "processes"), PROCESSES.items())
def test_two_nodes_run_twice_the_processes_of_one(name, processes):
    recipe = read_recipe(name)
    one, two = (launch_command(recipe, [name], nodes) for nodes in (1, 2))
    assert commands(dry_run(recipe, name)) == {"1 node": one, "2 nodes": two}
    if recipe.launch.accelerate is None:
        assert one == f"python -m models.training {name}"
    else:
        asked = parsed(one)
        assert (asked.num_machines, asked.num_processes) == (1, processes)
        assert asked.main_process_ip is None
    asked = parsed(two)
    assert (asked.num_machines, asked.num_processes) == (2, 2 * processes)
    assert (asked.machine_rank, asked.main_process_ip) == (1, "node-0")
    assert asked.module
    assert (asked.training_script, asked.training_script_args) == ("models.training", [name])


def test_several_processes_are_launched_without_a_launchers_file_too():
    recipe = read_recipe("tiny-sft-judge", ("launch.processes=4",))
    asked = parsed(launch_command(recipe, ["tiny-sft-judge"], 1))
    assert (asked.num_machines, asked.num_processes) == (1, 4)


def test_a_job_that_serves_a_proxy_itself_is_not_spread_over_nodes():
    # Each process would start a service of its own on the same files.
    printed = dry_run(read_recipe("tiny-grpo"), "tiny-grpo")
    assert "python -m models.training tiny-grpo" in printed.splitlines()
    assert "--num_machines 2" not in printed


@pytest.mark.parametrize("name", [n for n in PROCESSES if n.startswith("paper")])
def test_the_launchers_file_is_there_and_accelerate_reads_it(name):
    recipe = read_recipe(name)
    file = parsed(launch_command(recipe, [name], 1)).config_file
    config = load_config_from_file(file)
    assert config.mixed_precision == "bf16"
    assert recipe.train["bf16"]


@pytest.mark.parametrize("file", sorted((RECIPES_DIR / "accelerate").glob("*.yaml")))
def test_every_launchers_file_that_ships_is_read_by_accelerate(file):
    assert load_config_from_file(str(file)).num_machines == 1


def test_settings_are_repeated_so_that_a_shell_gives_them_back():
    settings = ('proxy_url="http://proxy:8000/a b"', "train.learning_rate=1e-6", "data.path=it's")
    recipe = read_recipe("paper-grpo", settings)
    given = [part for setting in settings for part in ("--set", setting)]
    for command in commands(dry_run(recipe, "paper-grpo", settings)).values():
        assert parsed(command).training_script_args == ["paper-grpo", *given]


def test_a_launchers_file_can_be_named_by_path_or_by_name(tmp_path):
    recipe = read_recipe("paper-sft-judge")
    own = tmp_path / "own.yaml"
    own.write_bytes((RECIPES_DIR / "accelerate" / "fsdp.yaml").read_bytes())
    for asked, found in (("fsdp", RECIPES_DIR / "accelerate" / "fsdp.yaml"), (str(own), own)):
        launched = recipe.model_copy(update={"launch": Launch(accelerate=asked, processes=2)})
        assert parsed(launch_command(launched, ["mine"], 1)).config_file == str(found)


@pytest.mark.parametrize("name", ["zero9", "/nowhere/zero2.yaml"])
def test_a_launchers_file_that_is_not_there_is_named_with_those_that_are(name):
    recipe = read_recipe("paper-sft-judge", (f"launch.accelerate='{name}'",))
    with pytest.raises(RecipeInvalid, match=r"launch\.accelerate: there is no .* fsdp, zero2"):
        dry_run(recipe, "paper-sft-judge")


@pytest.mark.parametrize("name", ["tiny-look", "paper-sft-judge", "paper-grpo"])
def test_what_the_trainer_does_not_know_is_refused_by_name(name):
    recipe = read_recipe(name, ("train.learning_rat=1e-5",))
    with pytest.raises(RecipeInvalid, match=r"\[train\]: .*learning_rat"):
        dry_run(recipe, name)


def test_what_the_trainer_refuses_is_refused():
    recipe = read_recipe("paper-grpo", ("train.num_generations=7",))
    with pytest.raises(RecipeInvalid, match=r"\[train\]: .*7"):
        dry_run(recipe, "paper-grpo")


def test_nothing_is_run_or_written(tmp_path):
    dry_run(read_recipe("tiny-look", (f"run='{tmp_path / 'run'}'",)), "tiny-look")
    assert list(tmp_path.iterdir()) == []
