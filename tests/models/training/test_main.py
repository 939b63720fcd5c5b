from __future__ import annotations

import json

import pytest

from models.training.__main__ import main
from models.training.data.files import write_records
from models.training.data.records import JudgedRecord
from models.training.recipe import RECIPES_DIR, shipped_recipes

pytestmark = pytest.mark.usefixtures("jobs")

JOBS = ["prepare", "distil", "split", "sft", "grpo", "export"]


def said(capsys):
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_help_teaches_the_six_jobs_in_their_order(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out, _ = said(capsys)
    described = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert [word for word in described if word in JOBS] == JOBS
    for option in ("--set", "--dry-run", "--list"):
        assert option in out


def test_every_example_of_the_help_is_one_that_works(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out, _ = said(capsys)
    prefix = "  python -m models.training "
    named = [line.removeprefix(prefix).split()[0] for line in out.splitlines() if prefix in line]
    own = {name for name in named if not name.startswith("-") and not name.endswith(".toml")}
    assert own
    assert own <= set(shipped_recipes())


def test_list_names_every_recipe_that_ships_with_what_it_is(capsys):
    assert main(["--list"]) == 0
    out, _ = said(capsys)
    assert [line.split()[0] for line in out.splitlines()] == sorted(shipped_recipes())
    for line in out.splitlines():
        assert len(line.split()) > 3
    assert {p.stem for p in RECIPES_DIR.glob("*.toml")} == set(shipped_recipes())


def test_without_a_recipe_it_says_what_to_name(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "name a recipe, or ask for --list" in said(capsys)[1]


def test_dry_run_prints_the_resolved_recipe_and_both_commands(capsys):
    setting = 'proxy_url="http://proxy:8000"'
    assert main(["paper-grpo", "--set", setting, "--dry-run"]) == 0
    out, err = said(capsys)
    resolved, _ = json.JSONDecoder().raw_decode(out)
    assert resolved["proxy_url"] == "http://proxy:8000"
    assert "# 1 node\naccelerate launch" in out
    assert "# 2 nodes\naccelerate launch" in out
    assert "error" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["paper-grpo", "--set", "train.learning_rat=1e-5", "--dry-run"], "learning_rat"),
        (["tiny-sft-judge", "--set", "train.learning_rat=1e-5", "--dry-run"], "learning_rat"),
        (["tiny-sft-judge", "--set", "data.nonsense=1", "--dry-run"], "data.nonsense"),
        (["tiny-sft-judge", "--set", "nonsense"], "expected key=value"),
        (["tiny-sft-judge", "--set", "model.size=1", "--dry-run"], "model.size"),
        (["tiny-sft-jugde"], "tiny-sft-judge"),
        (["absent.toml"], "absent.toml"),
    ],
)
def test_what_cannot_be_used_is_named_and_ends_with_1(capsys, arguments, says):
    assert main(arguments) == 1
    out, err = said(capsys)
    assert err.startswith("error: ")
    assert says in err
    assert "Traceback" not in err
    assert "finished" not in out


@pytest.mark.parametrize("content", [b"job = ", b'job = "dance"', b"", b"\xff\xfe", b"[data]\n"])
def test_a_file_that_is_no_recipe_is_named(tmp_path, capsys, content):
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    assert main([str(file)]) == 1
    assert f"error: {file}" in said(capsys)[1]


def test_a_job_runs_and_says_where_its_result_is(tmp_path, capsys, judged):
    write_records(tmp_path / "judged.jsonl", [judged(n) for n in range(8)], JudgedRecord)
    recipe = tmp_path / "split.toml"
    recipe.write_text('job = "split"\n[split]\njudged = "elsewhere.jsonl"\n')
    assert main([str(recipe), "--set", f"split.judged={tmp_path / 'judged.jsonl'}"]) == 0
    assert said(capsys)[0].splitlines()[-1] == f"finished: {tmp_path}"
    assert (tmp_path / "grm_sft.jsonl").exists()


def test_a_job_that_fails_says_what_to_do(tmp_path, capsys, tiny_prompts):
    recipe = tmp_path / "export.toml"
    recipe.write_text(
        'job = "export"\nname = "small"\npurpose = "demo"\nbase_model = "none"\n'
        f'judge = "{tmp_path / "sft"}"\nprompts = "{tiny_prompts}"\nrun = "{tmp_path / "run"}"\n'
    )
    assert main([str(recipe)]) == 1
    assert said(capsys)[1] == (
        f"error: judge: {tmp_path / 'sft'} is not there: run the job that makes it first\n"
    )
