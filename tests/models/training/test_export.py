from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from models.calibration import Calibration
from models.errors import ModelsError
from models.release import load_release
from models.training.errors import RecipeInvalid, WorseThanBefore
from models.training.export import export
from models.training.recipe import ExportRecipe


@pytest.fixture
def recipe(untrained, tiny_prompts, tmp_path):
    """Makes recipes of a judge and a proxy, both untrained, that measure nothing."""

    def make(**changes):
        return ExportRecipe.model_validate({
            "job": "export",
            "name": "small",
            "purpose": "demo",
            "base_model": "none",
            "judge": untrained,
            "proxy": untrained,
            "prompts": tiny_prompts,
            "run": tmp_path / "run",
            "context_tokens": 4096,
            "judgement_tokens": 512,
            "rubric_tokens": 256,
            "proxy_tokens": 128,
            "most_images": 4,
            "most_pixels": 12544,
            "calibration_cases": 0,
            "evaluation_cases": 0,
        } | changes)  # fmt: skip

    return make


def contents(folder):
    """Digest of every file by its name."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def figures(fingerprint="old", accuracy=0.8, readable=1.0, spread=0.02):
    """What an evaluation comes to."""
    return {
        "n": 1500,
        "accuracy": accuracy,
        "readable": readable,
        "accuracy_by_family": {"count": accuracy},
        "accuracy_heldout_by_family": {"count": accuracy},
        "intervals_95": {"accuracy": [accuracy - spread, accuracy + spread]},
        "fingerprint": fingerprint,
    }


def published(folder, **measured):
    """A release that was published before, measured or not."""
    folder.mkdir()
    (folder / "release.toml").write_text('name = "older"\n')
    (folder / "only-here.txt").write_text("older")
    if measured:
        (folder / "metrics.json").write_text(json.dumps(figures(**measured)))
    return contents(folder)


def measured(recipe, **found):
    """Puts figures where the export keeps them, so that no service has to be started."""
    unmeasured = {"run": recipe.run / "same", "evaluation_cases": 0, "publish": None}
    same = export(recipe.model_copy(update=unmeasured))
    known = figures(load_release(str(same)).fingerprint, **found)
    (recipe.run / "metrics.json").write_text(json.dumps(known))


# Assembling


def test_a_judge_and_a_proxy_become_a_release(recipe, tmp_path, tiny_prompts):
    folder = export(recipe())
    assert folder == tmp_path / "run" / "release"
    release = load_release(str(folder))
    assert [role.name for role in release.roles] == ["judge", "proxy"]
    for name in ("write_rubric", "rubric_given", "proxy"):
        copied = folder / "prompts" / f"{name}.txt"
        assert copied.read_bytes() == (tiny_prompts / f"{name}.txt").read_bytes()
    assert (folder / "README.md").read_text().startswith("# small\n")


def test_release_toml_says_what_the_recipe_said(recipe):
    config = load_release(str(export(recipe()))).config
    assert (config.name, config.purpose, config.base_model) == ("small", "demo", "none")
    assert config.context_tokens == 4096
    assert (config.sampling.judgement_tokens, config.sampling.rubric_tokens) == (512, 256)
    assert (config.images.maximum, config.images.most_pixels) == (4, 12544)
    assert config.proxy.tokens == 128
    assert config.calibration == Calibration()


def test_without_a_proxy_there_is_nothing_of_one(recipe):
    folder = export(recipe(proxy=None))
    assert load_release(str(folder)).proxy is None
    assert sorted(p.name for p in (folder / "prompts").iterdir()) == [
        "rubric_given.txt",
        "write_rubric.txt",
    ]
    assert "proxy" not in (folder / "release.toml").read_text()


@pytest.mark.parametrize(
    "base_model", ['Qwen "7B" \\ instruct', "two\nlines", "日本", "\N{GRINNING FACE}", "\x7f"]
)
def test_any_name_of_a_base_model_is_written_and_read_again(recipe, base_model):
    folder = export(recipe(proxy=None, base_model=base_model))
    assert load_release(str(folder)).config.base_model == base_model


@pytest.mark.parametrize("name", ["two words", "../up"])
def test_a_name_that_no_release_can_have_is_refused_before_any_work(recipe, name, tmp_path):
    with pytest.raises((ModelsError, ValueError), match="name"):
        export(recipe(name=name))
    assert not (tmp_path / "run" / "release" / "judge").exists()


@pytest.mark.parametrize("role", ["judge", "proxy"])
def test_a_model_that_is_not_there_names_the_job_to_run(recipe, role, tmp_path):
    absent = tmp_path / "sft" / "model"
    with pytest.raises(RecipeInvalid, match=f"{role}: {absent} is not there: run the job"):
        export(recipe(**{role: absent}))
    assert not (tmp_path / "run" / "release" / "release.toml").exists()


@pytest.mark.parametrize("name", ["proxy", "rubric_given"])
def test_prompts_that_are_not_there_are_named(recipe, tiny_prompts, tmp_path, name):
    prompts = tmp_path / "prompts"
    shutil.copytree(tiny_prompts, prompts)
    (prompts / f"{name}.txt").unlink()
    with pytest.raises(ModelsError, match=name):
        export(recipe(prompts=prompts))


def test_a_stage_that_is_not_there_is_named(recipe, tmp_path):
    with pytest.raises(ModelsError, match="grpo"):
        export(recipe(stages=[tmp_path / "grpo"]))
    (tmp_path / "grpo").mkdir()
    (tmp_path / "grpo" / "run.json").write_text("{}")  # it began and was stopped
    with pytest.raises(ModelsError, match="no finished run"):
        export(recipe(stages=[tmp_path / "grpo"]))


# Going on


def test_a_release_without_its_toml_is_assembled_again(recipe, tmp_path):
    folder = export(recipe())
    whole = contents(folder)
    # Killed in the middle: the toml comes last.
    (folder / "release.toml").unlink()
    (folder / "judge" / "model.safetensors").write_bytes(b"half")
    (folder / "proxy" / "leftover.bin").write_bytes(b"half")
    assert export(recipe()) == folder
    assert contents(folder) == whole


def test_a_whole_release_is_not_assembled_again(recipe, untrained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(untrained, model)
    folder = export(recipe(judge=model, proxy=None))
    whole = contents(folder)
    shutil.rmtree(model)
    export(recipe(judge=model, proxy=None))
    assert contents(folder) == whole


def test_other_weights_in_the_same_place_make_another_release(recipe, untrained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(untrained, model)
    before = load_release(str(export(recipe(judge=model, proxy=None)))).fingerprint
    (tmp_path / "run" / "metrics.json").write_text("{}")
    weights = load_file(model / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, model / "model.safetensors")
    assert load_release(str(export(recipe(judge=model, proxy=None)))).fingerprint != before
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_another_recipe_is_not_answered_with_what_the_first_one_made(recipe):
    export(recipe(proxy=None))
    try:
        folder = export(recipe(proxy=None, judgement_tokens=300))
    except ModelsError:
        return
    assert load_release(str(folder)).config.sampling.judgement_tokens == 300


# Publishing


def test_publishing_puts_the_whole_release_in_place_of_the_older_one(recipe, tmp_path):
    place = tmp_path / "releases" / "small"
    place.parent.mkdir()
    published(place)
    assert export(recipe(publish=place)) == place
    assert contents(place) == contents(tmp_path / "run" / "release")
    assert [p.name for p in place.parent.iterdir()] == ["small"]


def test_leftovers_of_a_killed_publication_are_cleared_away(recipe, tmp_path):
    place = tmp_path / "small"
    for leftover in (".small.partial", ".small.before"):
        (tmp_path / leftover / "judge").mkdir(parents=True)
        (tmp_path / leftover / "judge" / "half").write_bytes(b"half")
    assert export(recipe(publish=place)) == place
    assert load_release(str(place)).config.name == "small"
    assert not (place / "judge" / "half").exists()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_release_of_its_own_prompts_folder_can_be_published_over_itself(
    recipe, tiny_prompts, tmp_path
):
    place = tmp_path / "tiny"
    shutil.copytree(tiny_prompts, place / "prompts")
    export(recipe(prompts=place / "prompts", publish=place))
    assert load_release(str(place)).proxy is not None


def test_a_better_release_replaces_a_measured_one_and_brings_its_figures(recipe, tmp_path):
    place = tmp_path / "small"
    asked = recipe(publish=place, evaluation_cases=1500)
    published(place, accuracy=0.7)
    measured(asked, accuracy=0.8)
    assert export(asked) == place
    assert json.loads((place / "metrics.json").read_text())["accuracy"] == 0.8
    assert not (place / "only-here.txt").exists()
    assert "80.0%" in (place / "README.md").read_text()


def test_a_release_as_good_as_before_within_chance_replaces_it(recipe, tmp_path):
    place = tmp_path / "small"
    asked = recipe(publish=place, evaluation_cases=1500)
    published(place, accuracy=0.81, readable=1.0)
    measured(asked, accuracy=0.8, readable=0.996)
    assert export(asked) == place
    assert not (place / "only-here.txt").exists()


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ({"accuracy": 0.9}, {"accuracy": 0.8}, "accuracy is 0.8, was 0.9"),
        ({"readable": 1.0}, {"readable": 0.99}, "readable is 0.99, was 1.0"),
        (
            {"accuracy": 0.9, "readable": 1.0},
            {"accuracy": 0.5, "readable": 0.5},
            "accuracy is 0.5, was 0.9; readable is 0.5, was 1.0",
        ),
    ],
)
def test_a_worse_release_leaves_the_published_one_as_it_is(recipe, tmp_path, before, now, says):
    place = tmp_path / "small"
    asked = recipe(publish=place, evaluation_cases=1500)
    whole = published(place, **before)
    measured(asked, **now)
    with pytest.raises(WorseThanBefore) as refused:
        export(asked)
    assert says in str(refused.value)
    assert f"remove {place / 'metrics.json'} first" in str(refused.value)
    assert contents(place) == whole
    # As the message says: without its figures the older one is not defended.
    (place / "metrics.json").unlink()
    assert export(asked) == place


def test_an_unmeasured_release_never_replaces_a_measured_one(recipe, tmp_path):
    before = published(tmp_path / "there", accuracy=0.5)
    with pytest.raises(WorseThanBefore, match=r"was measured and this release was not"):
        export(recipe(publish=tmp_path / "there"))
    assert contents(tmp_path / "there") == before


def test_a_publication_killed_between_its_two_renames_loses_nothing(recipe, tmp_path):
    better = published(tmp_path / ".there.before", accuracy=0.9)
    worse = recipe(publish=tmp_path / "there", evaluation_cases=1500)
    measured(worse, accuracy=0.6)
    with pytest.raises(WorseThanBefore):
        export(worse)
    assert contents(tmp_path / "there") == better


# With figures


def test_through_a_service_it_is_calibrated_measured_and_published(recipe, tmp_path, monkeypatch):
    """The service's engine is the scripted one, which every process here inherits."""
    monkeypatch.setenv("PROXY_GRM_ENGINE", "scripted")
    place = tmp_path / "small"
    asked = recipe(publish=place, calibration_cases=12, evaluation_cases=8)
    assert export(asked) == place
    release = load_release(str(place))
    report = json.loads((asked.run / "calibration.json").read_text())
    assert report["full"]["given"]["passes"] == report["verdict"]["swapped"]["passes"] == 6
    assert release.config.calibration != Calibration()
    metrics = json.loads((place / "metrics.json").read_text())
    assert metrics["n"] == 8
    assert metrics["readable_without_structured_output"] == 1.0
    assert release.config.structured_output
    assert not (asked.run / "unstructured").exists()
    assert metrics["fingerprint"] == release.fingerprint
    card = (place / "README.md").read_text()
    assert "On 8 fresh drawn cases" in card
    assert "| verdict | swapped |" in card
    # Run again, everything is there: no service is started.
    (asked.run / "service" / "service.log").unlink()
    assert export(asked) == place
    assert not (asked.run / "service" / "service.log").exists()
    # Killed before the report was kept: what is fitted again is raw, not what was fitted before.
    (asked.run / "calibration.json").unlink()
    assert load_release(str(export(asked))).fingerprint == release.fingerprint
    assert json.loads((asked.run / "calibration.json").read_text()) == report
