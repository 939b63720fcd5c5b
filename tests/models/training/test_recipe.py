from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from models.training.errors import RecipeInvalid
from models.training.recipe import (
    RECIPES_DIR,
    ExampleSource,
    GrpoRecipe,
    LookRecipe,
    SftRecipe,
    TaskSource,
    Watch,
    read_recipe,
    shipped_recipes,
)
from models.training.rewards import AGGREGATIONS

SHIPPED = sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))
JOBS = ("prepare", "distil", "split", "look", "sft", "grpo", "export")
SFT = """\
job = "sft"
role = "judge"
model = "runs/look/model"
run = "runs/sft"

[data]
source = "toyworld"

[train]
learning_rate = 1e-3
"""
LOOK = 'job = "look"\nrun = "r"\nprompts = "p"\nscenes = 3\n'
GRPO = """\
job = "grpo"
role = "judge"
model = "m"
run = "r"
proxy_url = "http://127.0.0.1:8000"

[data]
source = "toyworld"
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def refusal(name, *settings):
    with pytest.raises(RecipeInvalid) as refused:
        read_recipe(name, settings)
    return str(refused.value)


# What ships


def test_some_recipes_ship():
    assert {"tiny-look", "tiny-sft-judge", "tiny-sft-proxy"} <= {*SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads_by_name_and_by_path(name):
    recipe = read_recipe(name)
    assert recipe == read_recipe(str(RECIPES_DIR / f"{name}.toml"))
    assert recipe.job in JOBS


def test_every_shipped_recipe_is_listed_with_what_it_does():
    listed = shipped_recipes()
    assert [*listed] == SHIPPED
    assert all(what and not what.startswith("#") for what in listed.values())


def test_no_two_shipped_recipes_share_a_run_folder():
    runs = [recipe.run for recipe in map(read_recipe, SHIPPED) if hasattr(recipe, "run")]
    assert len({*runs}) == len(runs)


# Reading


def test_the_job_decides_the_recipes_type(write):
    look, sft, grpo = (
        read_recipe(write(text, f"{n}.toml")) for n, text in enumerate((LOOK, SFT, GRPO))
    )
    assert isinstance(look, LookRecipe)
    assert isinstance(sft, SftRecipe)
    assert isinstance(grpo, GrpoRecipe)
    assert sft.data == ExampleSource(source="toyworld")
    assert sft.run == Path("runs/sft")
    assert grpo.data == TaskSource(source="toyworld")
    assert sft.watch == Watch()


def test_arguments_of_the_trainer_are_passed_on_as_they_are(write):
    text = (
        SFT + 'lr_scheduler_kwargs = { min_lr_rate = 0.05 }\nbf16 = false\nsave_strategy = "no"\n'
    )
    assert read_recipe(write(text)).train == {
        "learning_rate": 1e-3,
        "lr_scheduler_kwargs": {"min_lr_rate": 0.05},
        "bf16": False,
        "save_strategy": "no",
    }


def test_a_recipe_cannot_be_changed(write):
    recipe = read_recipe(write(SFT))
    with pytest.raises(ValidationError):
        recipe.role = "proxy"


# What is wrong


@pytest.mark.parametrize("name", ["tiny-lok", "", "TINY-LOOK", "nowhere/mine.toml", ".toml"])
def test_an_unknown_name_lists_those_that_ship(name):
    said = refusal(name)
    assert repr(name) in said
    assert all(known in said for known in SHIPPED)


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "mine.toml").mkdir()
    assert "mine.toml" in refusal(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (SFT.replace("role", "rule"), "rule"),
        (SFT.replace("role", "rule"), "role"),
        (SFT.replace('role = "judge"\n', ""), "role"),
        (SFT.replace('"judge"', '"jury"'), "role"),
        (SFT.replace('run = "runs/sft"', "run = 3"), "run"),
        (SFT.replace("[train]", "examples = 0\n[train]"), "data.examples"),
        (SFT.replace("[train]", 'examples = "many"\n[train]'), "data.examples"),
        (SFT.replace("[train]", "empty_evaluation = 1.5\n[train]"), "data.empty_evaluation"),
        (SFT.replace("[train]", "rubric_givn = 0.5\n[train]"), "data.rubric_givn"),
        (SFT.replace('"toyworld"', '"hub"'), "data.source"),
        ("label_weight = 0\n" + SFT, "label_weight"),
        ("watch.diverged_above = 1\n" + SFT, "watch.diverged_above"),
        ("watch.patience_steps = 0\n" + SFT, "watch.patience_steps"),
        ("launch.processes = 0\n" + SFT, "launch.processes"),
        ("train = 3\n" + SFT.partition("[train]")[0], "train"),
        (SFT.replace('"sft"', '"sfft"'), "job"),
        (SFT.replace('job = "sft"\n', ""), "job"),
        (LOOK.replace("3", "0"), "scenes"),
        (LOOK + "facts = 0\n", "facts"),
        (GRPO.replace('"r"\n', '"r"\naggregation = "explicit-11"\n'), "aggregation"),
        (GRPO.replace("[data]", "proxy_concurrency = 0\n[data]"), "proxy_concurrency"),
        ("", "job"),
    ],
)
def test_what_is_wrong_is_said_by_file_and_field(write, wrong, field):
    path = write(wrong)
    said = refusal(path)
    assert path in said
    assert field in said


def test_every_problem_is_said_at_once(write):
    said = refusal(write("label_weight = 0\n" + SFT.replace('"judge"', '"jury"')))
    assert "role" in said
    assert "label_weight" in said


def test_what_is_no_toml_is_said_with_its_place(write):
    path = write(SFT.replace('role = "judge"', "role = judge"))
    said = refusal(path)
    assert path in said
    assert "line 2" in said


def test_a_file_that_is_no_text_is_refused_by_its_name(write):
    path = write(b"job = \xff\xfe")
    assert path in refusal(path)


def test_an_unknown_aggregation_lists_the_known_ones(write):
    said = refusal(write(GRPO.replace('"r"\n', '"r"\naggregation = "sum"\n')))
    assert all(name in said for name in AGGREGATIONS)


def test_a_proxy_is_named_exactly_where_it_counts(write):
    without = GRPO.replace('proxy_url = "http://127.0.0.1:8000"\n', "")
    assert "proxy_url" in refusal(write(without))
    assert "proxy_url" in refusal(write(GRPO.replace('"r"\n', '"r"\naggregation = "none"\n')))
    plain = read_recipe(write(without.replace('"r"\n', '"r"\naggregation = "none"\n')))
    assert plain.proxy_url is plain.proxy_release is None
    assert "proxy_url" in refusal(write(GRPO.replace('"r"\n', '"r"\nproxy_release = "x"\n')))
    own = read_recipe(write(without.replace('"r"\n', '"r"\nproxy_release = "x"\n')))
    assert own.proxy_release == Path("x")


# --set


@pytest.mark.parametrize(
    ("setting", "read", "value"),
    [
        ("data.examples=7", lambda r: r.data.examples, 7),
        ("train.learning_rate=5e-6", lambda r: r.train["learning_rate"], 5e-6),
        ("train.bf16=true", lambda r: r.train["bf16"], True),
        ("train.seed = 3", lambda r: r.train["seed"], 3),
        ("run=runs/other", lambda r: r.run, Path("runs/other")),
        ('run="runs/other"', lambda r: r.run, Path("runs/other")),
        ("model=Qwen/Qwen2.5-VL-7B-Instruct", lambda r: r.model, "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("model=a=b", lambda r: r.model, "a=b"),
        ("role=proxy", lambda r: r.role, "proxy"),
        ("watch.patience_steps=9", lambda r: r.watch.patience_steps, 9),
        ("train.lr_scheduler_kwargs.min_lr_rate=0.1", lambda r: r.train["lr_scheduler_kwargs"],
         {"min_lr_rate": 0.1}),
        ("train.report_to=[\"wandb\"]", lambda r: r.train["report_to"], ["wandb"]),
    ],
)  # fmt: skip
def test_a_setting_is_put_over_the_file(write, setting, read, value):
    assert read(read_recipe(write(SFT), (setting,))) == value


def test_settings_are_put_in_their_order_and_leave_the_rest(write):
    path = write(SFT)
    recipe = read_recipe(path, ("data.examples=7", "data.examples=8"))
    assert recipe.data.examples == 8
    assert recipe.train == read_recipe(path).train


@pytest.mark.parametrize("setting", ["model=", "model= "])
def test_a_setting_without_a_value_takes_the_key_away(write, setting):
    assert "model: Field required" in refusal(write(SFT), setting)
    assert read_recipe(write(SFT), (setting, "model=another")).model == "another"


def test_taking_away_what_is_not_there_changes_nothing(write):
    path = write(SFT)
    assert read_recipe(path, ("data.path=", "watch.diverged_above=")) == read_recipe(path)


def test_a_setting_works_on_a_recipe_that_ships():
    assert read_recipe("tiny-look", ("scenes=8",)).scenes == 8


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("data.examples", "key=value"),
        ("data.examples=many", "data.examples"),
        ("data.exmaples=7", "data.exmaples"),
        ("scenes=7", "scenes"),
        ("run.folder=x", "run"),
        ("=7", ""),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(write, setting, word):
    assert word in refusal(write(SFT), setting)
