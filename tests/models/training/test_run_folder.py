from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.training.callbacks import COMPLETE
from models.training.errors import RecipeInvalid, RunDiverged
from models.training.recipe import SftRecipe, Watch
from models.training.run_folder import RunFolder

FINE = SimpleNamespace(reason=None)


def recipe(run, **changes):
    fields = {"job": "sft", "role": "judge", "model": "m", "data": {"source": "toyworld"}}
    return SftRecipe.model_validate(fields | {"run": run} | changes)


class FakeTrainer:
    """Trains nothing; keeps what it was asked for."""

    def __init__(self, steps=3, fails=None, first=True):
        self.state = SimpleNamespace(global_step=0)
        self.steps, self.fails, self.first = steps, fails, first
        self.resumed = []
        self.accelerator = SimpleNamespace(wait_for_everyone=lambda: None)

    def train(self, resume_from_checkpoint):
        self.resumed.append(resume_from_checkpoint)
        self.state.global_step = self.steps
        if self.fails is not None:
            raise self.fails

    def is_world_process_zero(self):
        return self.first

    def save_model(self, folder):
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "model.safetensors").write_bytes(b"weights")
        (Path(folder) / "training_args.bin").write_bytes(b"pickled")


@pytest.fixture
def folder(tmp_path):
    found = RunFolder(tmp_path / "runs" / "sft")
    found.claim(recipe(found.path))
    return found


def account(folder):
    return json.loads((folder.path / "run.json").read_text())


# Whose it is


def test_a_folder_is_made_for_its_recipe(folder):
    kept = json.loads((folder.path / "recipe.json").read_text())
    assert kept["role"] == "judge"
    assert not folder.is_finished


def test_of_many_processes_the_first_alone_claims_it(tmp_path, monkeypatch):
    found = RunFolder(tmp_path / "run")
    monkeypatch.setenv("RANK", "1")
    found.claim(recipe(found.path))
    assert not (found.path / "recipe.json").exists()
    monkeypatch.setenv("RANK", "0")
    found.claim(recipe(found.path))
    assert (found.path / "recipe.json").exists()
    (found.path / "checkpoint-1").mkdir()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RecipeInvalid, match="another recipe"):
        found.claim(recipe(found.path, role="proxy"))


def test_the_same_recipe_may_claim_it_again(folder):
    folder.claim(recipe(folder.path))


@pytest.mark.parametrize(
    "change",
    [
        {"role": "proxy"},
        {"label_weight": 2.0},
        {"model": "other"},
        {"train": {"learning_rate": 1e-3}},
        {"data": {"source": "toyworld", "seed": 1}},
    ],
)
def test_a_folder_of_another_recipe_is_refused_and_left_alone(folder, change):
    (folder.path / "checkpoint-5").mkdir()
    before = (folder.path / "recipe.json").read_bytes()
    with pytest.raises(RecipeInvalid, match="another recipe") as refused:
        folder.claim(recipe(folder.path, **change))
    assert str(folder.path) in str(refused.value)
    assert "--set run=" in str(refused.value)
    assert (folder.path / "recipe.json").read_bytes() == before


def test_a_recipe_of_which_nothing_has_come_yet_may_be_corrected(folder):
    folder.claim(recipe(folder.path, model="another"))
    assert json.loads((folder.path / "recipe.json").read_text())["model"] == "another"


def test_where_it_runs_and_when_it_is_stopped_do_not_make_another_recipe(folder, tmp_path):
    folder.claim(recipe(folder.path, watch=Watch(patience_steps=99)))
    folder.claim(recipe(folder.path, launch={"processes": 8}))
    moved = folder.path.rename(tmp_path / "moved")
    RunFolder(moved).claim(recipe(moved))


# Where it goes on


def checkpoint(folder, step, complete=True):
    path = folder.path / f"checkpoint-{step}"
    path.mkdir()
    if complete:
        (path / COMPLETE).touch()
    return path


def test_a_fresh_run_starts_at_the_beginning(folder, capsys):
    trainer = FakeTrainer()
    folder.train(trainer, FINE)
    assert trainer.resumed == [None]
    assert "going on" not in capsys.readouterr().out


def test_a_run_goes_on_from_its_last_whole_checkpoint(folder, capsys):
    last = checkpoint(folder, 10)
    checkpoint(folder, 9)
    checkpoint(folder, 11, complete=False)
    trainer = FakeTrainer()
    folder.train(trainer, FINE)
    assert trainer.resumed == [str(last)]
    assert f"going on from {last}" in capsys.readouterr().out


# What came out


def test_every_start_is_accounted_for(folder):
    folder.train(FakeTrainer(steps=2), FINE)
    folder.train(FakeTrainer(steps=5), FINE)
    known = account(folder)
    assert (known["starts"], known["steps"]) == (2, 5)
    assert known["wall_s"] >= 0
    assert {"torch", "transformers", "trl", "accelerate"} == {*known["versions"]}


def test_a_start_that_fails_is_accounted_for_and_fails(folder):
    with pytest.raises(MemoryError):
        folder.train(FakeTrainer(steps=1, fails=MemoryError()), FINE)
    assert account(folder)["starts"] == 1
    assert not folder.is_finished


def test_only_the_first_process_writes(folder):
    trainer = FakeTrainer(first=False)
    folder.train(trainer, FINE)
    folder.finish(trainer)
    assert not (folder.path / "run.json").exists()
    assert not folder.is_finished


def test_a_diverged_run_says_so_and_is_not_finished(folder):
    kept = checkpoint(folder, 4)
    with pytest.raises(RunDiverged, match="the loss is nan at step 7") as raised:
        folder.train(FakeTrainer(steps=7), SimpleNamespace(reason="the loss is nan at step 7"))
    assert str(folder.path) in str(raised.value)
    assert account(folder)["steps"] == 7
    assert not folder.is_finished
    assert kept.is_dir()


def test_a_finished_run_holds_its_model_and_no_pickle(folder):
    assert folder.finish(FakeTrainer()) == folder.model
    assert folder.is_finished
    assert [path.name for path in folder.model.iterdir()] == ["model.safetensors"]
    assert not (folder.path / "model.partial").exists()


def test_a_result_that_was_half_written_is_not_taken_for_one(folder):
    partial = folder.path / "model.partial"
    partial.mkdir()
    (partial / "half.safetensors").write_bytes(b"half")
    assert not folder.is_finished
    folder.finish(FakeTrainer())
    assert [path.name for path in folder.model.iterdir()] == ["model.safetensors"]
