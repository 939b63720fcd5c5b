from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from trl import GRPOConfig, SFTConfig

from models.prompts import read_prompts
from models.training.__main__ import main
from models.training.callbacks import COMPLETE
from models.training.data.files import write_records
from models.training.data.records import JudgedRecord
from models.training.errors import RecipeInvalid, RunDiverged
from models.training.recipe import GrpoRecipe, LookRecipe, SftRecipe, read_recipe, shipped_recipes
from models.training.rewards import Opinion
from models.training.tiny import PROMPTS_DIR

pytestmark = [
    pytest.mark.usefixtures("jobs"),
    pytest.mark.filterwarnings("ignore"),  # torch's, TRL's and transformers' own
]

ROOT = Path(__file__).parents[3]
TRAIN = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "seed": 0,
}
LOOK = {
    "fields": {"job": "look", "prompts": str(PROMPTS_DIR), "scenes": 64, "facts": 3},
    "train": {"num_train_epochs": 1, "save_steps": 5},
}
SFT = {
    "fields": {"job": "sft", "role": "proxy"},
    "data": {"source": "toyworld", "prompts": str(PROMPTS_DIR), "examples": 48},
    # Twelve steps an epoch: the first checkpoint is in the second epoch.
    "train": {"num_train_epochs": 2, "save_steps": 13},
}
GRPO = {
    "fields": {"job": "grpo", "role": "proxy", "aggregation": "none"},
    "data": {"source": "toyworld", "prompts": str(PROMPTS_DIR), "prompts_drawn": 8},
    "train": {
        "max_steps": 4,
        "save_steps": 2,
        "num_generations": 4,
        "steps_per_generation": 2,
        "max_completion_length": 12,
        "learning_rate": 1e-5,
    },
}


def write_recipe(path, recipe, run, model=None, **tables):
    """A recipe file; `tables` are put over those of `recipe`."""
    fields = recipe["fields"] | {"run": str(run)} | ({"model": str(model)} if model else {})
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    for table in ("data", "watch", "train"):
        values = (TRAIN if table == "train" else {}) | recipe.get(table, {}) | tables.get(table, {})
        if values:
            lines += [f"[{table}]", *(f"{n} = {json.dumps(v)}" for n, v in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def run_job(recipe):
    assert main([recipe]) == 0


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def history(run):
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def losses(run):
    return [entry["loss"] for entry in history(run) if "loss" in entry]


# Look, sft and grpo, one after the other


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def looked(jobs, folder):
    """A run that nothing interrupted."""
    run_job(write_recipe(folder / "look.toml", LOOK, folder / "look"))
    return folder / "look"


@pytest.fixture(scope="module")
def taught(looked, folder):
    """The next one."""
    run = folder / "sft"
    run_job(write_recipe(folder / "sft.toml", SFT, run, looked / "model"))
    return run


@pytest.fixture(scope="module")
def reinforced(taught, folder):
    """And the last."""
    run = folder / "grpo"
    run_job(write_recipe(folder / "grpo.toml", GRPO, run, taught / "model"))
    return run


def test_a_finished_run_holds_a_model_that_loads_and_its_records(looked, taught, reinforced):
    for run, steps in ((looked, 16), (taught, 24), (reinforced, 4)):
        network = Qwen2_5_VLForConditionalGeneration.from_pretrained(run / "model")
        assert not hasattr(network, "probe")
        Qwen2_5_VLProcessor.from_pretrained(run / "model")
        assert not (run / "model" / "training_args.bin").exists()
        assert json.loads((run / "run.json").read_text())["steps"] == steps
        assert (run / f"checkpoint-{steps}" / COMPLETE).exists()
        assert [e["step"] for e in history(run) if "loss" in e] == [*range(1, steps + 1)]
        assert any((run / "logs").iterdir())
        with Image.open(run / "curves.png") as picture:
            picture.verify()


def test_training_lowers_the_loss(looked, taught):
    for run in (looked, taught):
        found = losses(run)
        assert sum(found[-3:]) < sum(found[:3])
    assert all(0 < entry["probe_loss"] < 5 for entry in history(looked) if "loss" in entry)


def test_each_job_changes_the_weights_it_was_given(looked, taught):
    assert weights(taught) != weights(looked)


def test_grpo_logs_the_rewards_of_each_generation(reinforced):
    generations = [entry for entry in history(reinforced) if "reward" in entry]
    assert [entry["step"] for entry in generations] == [1, 3]
    for entry in generations:
        readable = 1 - entry["unreadable"]
        assert entry["reward"] == entry["rewards/accuracy/mean"] + 0.5 * readable
        assert entry["completions/mean_length"] <= 12
        assert "proxy_abstained" not in entry


def test_grpo_finds_the_verdict_that_supervised_training_left_open(untrained, judged, tmp_path):
    """Supervised on both verdicts of each pair a judge learns the form; only rewards tell more."""
    pairs = [judged(n, label=2) for n in range(4)]
    both = [
        pair.model_copy(update={"id": f"{pair.id}-{label}", "label": label})
        for pair in pairs
        for label in (1, 2)
    ]
    write_records(tmp_path / "both.jsonl", both, JudgedRecord)
    write_records(tmp_path / "pairs.jsonl", pairs, JudgedRecord)
    data = {"source": "records", "path": str(tmp_path / "both.jsonl"), "empty_evaluation": 0}
    form = {"max_steps": 160, "per_device_train_batch_size": 8, "learning_rate": 3e-3}
    taught = tmp_path / "form"
    fields = {"job": "sft", "role": "judge"}
    data |= {"prompts": str(PROMPTS_DIR), "rubric_given": 0}
    recipe = {"fields": fields, "data": data, "train": form}
    run_job(write_recipe(tmp_path / "form.toml", recipe, taught, untrained))
    recipe = {
        "fields": {"job": "grpo", "role": "judge", "aggregation": "none"},
        "data": {"source": "records", "path": str(tmp_path / "pairs.jsonl")}
        | {"prompts": str(PROMPTS_DIR)},
        "train": {
            "max_steps": 16,
            "learning_rate": 1e-4,
            "lr_scheduler_type": "constant",
            "per_device_train_batch_size": 32,
            "num_generations": 8,
            "steps_per_generation": 1,
            "max_completion_length": 64,
            "save_steps": 16,
        },
    }
    run = tmp_path / "grpo"
    run_job(write_recipe(tmp_path / "grpo.toml", recipe, run, taught / "model"))
    rewards = [e["rewards/accuracy/mean"] for e in history(run) if "rewards/accuracy/mean" in e]
    assert len(rewards) == 16
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.3


def test_what_look_builds_can_read_its_prompts(looked):
    tokenizer = Qwen2_5_VLProcessor.from_pretrained(looked / "model").tokenizer
    for prompt in read_prompts(PROMPTS_DIR).values():
        assert len(tokenizer.encode(prompt.system)) < len(prompt.system) / 2


def test_a_finished_run_is_not_run_again(taught, folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in taught.rglob("*") if path.is_file()}
    del before[taught / "recipe.json"]
    run_job(str(folder / "sft.toml"))
    assert str(taught / "model") in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_recipe_is_refused_in_a_run_that_is_there(taught, folder, capsys):
    before = weights(taught)
    assert main([str(folder / "sft.toml"), "--set", "train.learning_rate=1.0"]) == 1
    printed = capsys.readouterr()
    assert "another recipe" in printed.err
    assert "Traceback" not in printed.err
    assert weights(taught) == before


# Killed


def kill_after(marker, recipe, log):
    """Runs a recipe in a process of its own and kills it when the marker is there."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "models.training", recipe],
            cwd=ROOT, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            while not marker.exists():
                assert process.poll() is None, log.read_text()
                time.sleep(0.002)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL, log.read_text()


def half_written(run, whole, step):
    """The checkpoint of a process that was killed while it wrote one."""
    folder = run / f"checkpoint-{step}"
    shutil.copytree(run / f"checkpoint-{whole}", folder, dirs_exist_ok=True)
    (folder / COMPLETE).unlink(missing_ok=True)
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:1000])


def assert_goes_on(recipe, run, unkilled, first, following, capsys):
    """A run killed after its first checkpoint ends as the one that was not killed."""
    kill_after(run / f"checkpoint-{first}" / COMPLETE, recipe, run.with_suffix(".log"))
    assert not (run / "model").exists()
    half_written(run, first, following)
    run_job(recipe)
    assert f"going on from {run / f'checkpoint-{first}'}" in capsys.readouterr().out
    assert weights(run) == weights(unkilled)
    assert losses(run) == losses(unkilled)


def test_a_killed_sft_run_ends_with_the_weights_of_an_unkilled_one(looked, taught, folder, capsys):
    run = folder / "killed-sft"
    recipe = write_recipe(folder / "killed-sft.toml", SFT, run, looked / "model")
    assert_goes_on(recipe, run, taught, 13, 24, capsys)


def test_a_killed_look_run_ends_with_the_weights_of_an_unkilled_one(looked, folder, capsys):
    run = folder / "killed-look"
    recipe = write_recipe(folder / "killed-look.toml", LOOK, run)
    assert_goes_on(recipe, run, looked, 5, 10, capsys)


def test_a_grpo_run_goes_on_from_the_start_of_a_generation(reinforced, taught, folder, capsys):
    run = folder / "killed-grpo"
    shutil.copytree(reinforced, run)
    for left in ("model", "checkpoint-4"):
        shutil.rmtree(run / left)
    half_written(run, 2, 4)
    kept = run / "checkpoint-2" / "model.safetensors"
    marked = {name: tensor + 0.5 for name, tensor in load_file(kept).items()}
    save_file(marked, kept, {"format": "pt"})
    run_job(write_recipe(folder / "killed-grpo.toml", GRPO, run, taught / "model"))
    assert f"going on from {run / 'checkpoint-2'}" in capsys.readouterr().out
    assert [entry["step"] for entry in history(run) if "loss" in entry] == [1, 2, 3, 4]
    assert json.loads((run / "run.json").read_text())["steps"] == 4
    # Where every rollout earns the same nothing is learned: the weights are still the checkpoint's.
    found = load_file(run / "model" / "model.safetensors")
    assert found.keys() == marked.keys()
    assert all((found[name] - marked[name]).abs().max() < 1e-2 for name in marked)


# Diverged


def diverge(jobs, untrained, run, train, watch):
    recipe = write_recipe(run.with_suffix(".toml"), SFT, run, untrained, train=train, watch=watch)
    with pytest.raises(RunDiverged) as raised:
        jobs.sft(read_recipe(recipe))
    assert not (run / "model").exists()
    return str(raised.value)


def test_a_run_whose_loss_runs_away_is_stopped_and_keeps_its_last_good_checkpoint(
    jobs, untrained, tmp_path
):
    watch = {"diverged_above": 1.05, "patience_steps": 2}
    train = {"learning_rate": 0.5, "save_steps": 1}
    said = diverge(jobs, untrained, tmp_path / "run", train, watch)
    assert "learning rate" in said
    run = tmp_path / "run"
    stopped = json.loads((run / "run.json").read_text())["steps"]
    assert 2 <= stopped < 24
    last_good = stopped - watch["patience_steps"]
    assert [path.name for path in run.glob("checkpoint-*")] == [f"checkpoint-{last_good}"]
    assert (run / f"checkpoint-{last_good}" / COMPLETE).exists()
    assert len(losses(run)) == stopped


def test_a_run_whose_loss_is_no_number_is_stopped(jobs, untrained, tmp_path):
    train = {"learning_rate": 1e30, "max_grad_norm": 0.0, "save_steps": 100}
    assert "nan" in diverge(jobs, untrained, tmp_path / "run", train, {})


# GRPO with a proxy


class FakeProxy:
    """Agrees with nobody, and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    async def opinions(self, asked):
        self.asked.append(len(asked))
        return [Opinion(1, 0.5) for _ in asked]


def test_a_judge_that_writes_no_rubric_yet_is_trained_without_opinions(jobs, untrained, tmp_path):
    recipe = read_recipe(
        write_recipe(
            tmp_path / "judge.toml",
            GRPO | {"fields": {"job": "grpo", "role": "judge", "proxy_url": "http://127.0.0.1:1"}},
            tmp_path / "run",
            untrained,
            train={"max_steps": 2},
        )
    )
    proxy = FakeProxy()
    assert jobs.grpo(recipe, proxy) == tmp_path / "run" / "model"
    assert sum(proxy.asked) == 0
    (generation,) = [entry for entry in history(tmp_path / "run") if "reward" in entry]
    assert generation["proxy_abstained"] == 1.0
    assert "rewards/proxy/mean" not in generation


# Recipes


@pytest.mark.parametrize(
    ("train", "multiple"),
    [
        ({"save_steps": 3}, 2),
        ({"save_steps": 1}, 2),
        ({"save_steps": 6, "steps_per_generation": 4}, 4),
        ({"save_steps": 6, "num_iterations": 2}, 4),
        ({"save_steps": 500, "steps_per_generation": 3, "num_generations": 4}, 3),
    ],
)
def test_a_grpo_checkpoint_between_two_generations_is_refused(jobs, tmp_path, train, multiple):
    recipe = write_recipe(tmp_path / "grpo.toml", GRPO, tmp_path / "run", "m", train=train)
    with pytest.raises(RecipeInvalid, match=f"multiple of {multiple}") as refused:
        jobs.grpo_arguments(read_recipe(recipe))
    assert f"save_steps is {train['save_steps']}" in str(refused.value)


def test_a_generation_is_counted_in_passes_of_which_an_update_has_several(jobs, tmp_path):
    train = {"gradient_accumulation_steps": 32, "steps_per_generation": 64, "save_steps": 20}
    train |= {"per_device_train_batch_size": 4, "num_generations": 8}
    recipe = write_recipe(tmp_path / "grpo.toml", GRPO, tmp_path / "run", "m", train=train)
    assert jobs.grpo_arguments(read_recipe(recipe)).save_steps == 20
    train |= {"save_steps": 21}
    odd = write_recipe(tmp_path / "odd.toml", GRPO, tmp_path / "run", "m", train=train)
    with pytest.raises(RecipeInvalid, match="multiple of 2"):
        jobs.grpo_arguments(read_recipe(odd))


@pytest.mark.parametrize("job", ["sft", "grpo"])
def test_a_model_that_is_not_there_is_an_error_of_the_recipe(jobs, tmp_path, job):
    written = {"sft": SFT, "grpo": GRPO}[job]
    recipe = write_recipe(tmp_path / "r.toml", written, tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(RecipeInvalid, match=r"model: .*nowhere cannot be read"):
        getattr(jobs, job)(read_recipe(recipe))


@pytest.mark.parametrize("save_steps", [2, 4, 100])
def test_a_grpo_checkpoint_at_the_start_of_a_generation_is_fine(jobs, tmp_path, save_steps):
    recipe = write_recipe(
        tmp_path / "grpo.toml", GRPO, tmp_path / "run", "m", train={"save_steps": save_steps}
    )
    assert jobs.grpo_arguments(read_recipe(recipe)).save_steps == save_steps


@pytest.mark.parametrize(
    ("train", "word"), [({"learning_rat": 1.0}, "learning_rat"), ({"save_strategy": "so"}, "so")]
)
@pytest.mark.parametrize("kind", [SFT, GRPO])
def test_an_argument_that_the_trainer_refuses_is_named(jobs, tmp_path, kind, train, word):
    recipe = read_recipe(
        write_recipe(tmp_path / "mine.toml", kind, tmp_path / "run", "m", train=train)
    )
    build = jobs.sft_arguments if kind is SFT else jobs.grpo_arguments
    with pytest.raises(RecipeInvalid, match=word):
        build(recipe)


def test_where_deepspeed_is_missing_a_recipe_with_it_says_how_to_install_it(jobs, tmp_path):
    train = {"deepspeed": "zero2", "bf16": False}
    recipe = read_recipe(
        write_recipe(tmp_path / "mine.toml", SFT, tmp_path / "run", "m", train=train)
    )
    if importlib.util.find_spec("deepspeed") is None:
        with pytest.raises(RecipeInvalid, match=r"requirements/deepspeed\.txt"):
            jobs.sft_arguments(recipe)
    else:
        found = jobs.sft_arguments(recipe).hf_deepspeed_config
        assert found.get_value("zero_optimization.stage") == 2


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_names_only_arguments_that_its_trainer_has(name):
    recipe = read_recipe(name)
    if isinstance(recipe, (LookRecipe, SftRecipe, GrpoRecipe)):
        config = GRPOConfig if isinstance(recipe, GrpoRecipe) else SFTConfig
        assert {*recipe.train} <= {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_trainer_takes_every_shipped_recipe_for_the_cpu(jobs, name):
    recipe = read_recipe(name)
    if isinstance(recipe, (LookRecipe, SftRecipe, GrpoRecipe)) and recipe.train.get("use_cpu"):
        build = jobs.grpo_arguments if isinstance(recipe, GrpoRecipe) else jobs.sft_arguments
        arguments = build(recipe)
        assert arguments.output_dir == str(recipe.run)
        assert arguments.save_total_limit == 2
