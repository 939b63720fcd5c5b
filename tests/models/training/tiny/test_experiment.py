from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.training.errors import TrainingError
from models.training.recipe import ExportRecipe, GrpoRecipe, SftRecipe, read_recipe
from models.training.tiny.experiment import Job, Plan, main, run_jobs


@pytest.fixture
def plan(tmp_path):
    return Plan(tmp_path / "experiment", seeds=2, cold_start=320, prompts=16, cases=40)


@pytest.fixture
def recipes(plan):
    return [read_recipe(job.recipe, job.settings) for job in plan.jobs()]


def test_every_job_is_a_recipe_in_a_folder_of_its_own(recipes):
    folders = [recipe.run for recipe in recipes]
    assert len(set(folders)) == len(folders)


def test_a_job_comes_after_those_that_it_needs(plan, recipes):
    made = set()
    for recipe in recipes:
        needed = (
            [recipe.judge, recipe.proxy]
            if isinstance(recipe, ExportRecipe)
            else [Path(recipe.model), getattr(recipe, "proxy_release", None)]
        )
        ours = [p.parent for p in needed if p is not None and p.is_relative_to(plan.root)]
        assert set(ours) <= made
        made.add(recipe.run)


def test_arms_of_a_seed_begin_at_one_cold_start_and_differ_in_their_proxy_alone(plan, recipes):
    judges = [r for r in recipes if isinstance(r, GrpoRecipe) and r.role == "judge"]
    for seed in range(plan.seeds):
        of_seed = [r for r in judges if r.model == str(plan.judge("SFT", seed) / "model")]
        assert [r.aggregation for r in of_seed] == ["none", "implicit", "implicit"]
        assert len({r.proxy_release for r in of_seed}) == 3
        same = [r.model_dump(exclude={"run", "aggregation", "proxy_release"}) for r in of_seed]
        assert same[0] == same[1] == same[2]


def test_the_evaluator_of_the_figures_is_asked_in_no_training(plan, recipes):
    evaluator = plan.root / "evaluator"
    (made,) = [r for r in recipes if isinstance(r, SftRecipe) and r.role == "proxy"]
    assert made.run == evaluator
    asked = {r.proxy_release.parent for r in recipes if getattr(r, "proxy_release", None)}
    with_evaluator = {r.run for r in recipes if getattr(r, "proxy", None) == evaluator / "model"}
    assert with_evaluator == {plan.release(arm, seed) for arm in plan.arms for seed in range(2)}
    assert not asked & with_evaluator


def test_seeds_differ_in_data_and_training(recipes):
    starts = [r for r in recipes if isinstance(r, SftRecipe) and r.role == "judge"]
    assert len({(r.data.seed, r.train["seed"]) for r in starts}) == len(starts) == 2


def test_a_job_that_fails_ends_the_experiment(tmp_path, capfd):
    missing = Job("tiny-interim", (f"run={json.dumps(str(tmp_path / 'run'))}", 'judge="nowhere"'))
    with pytest.raises(TrainingError, match="run this again to go on"):
        run_jobs([missing])
    assert "nowhere is not there" in capfd.readouterr().err


def test_a_dry_run_prints_commands_and_runs_nothing(tmp_path, capsys):
    assert main(["--dry-run", "--root", str(tmp_path / "x"), "--seeds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("-m models.training tiny-") for line in lines)
    assert not (tmp_path / "x").exists()
