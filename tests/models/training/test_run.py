from __future__ import annotations

import json

import pytest

from models.errors import ModelsError
from models.training.data.files import read_records, write_records
from models.training.data.records import JudgedRecord, PreferenceRecord
from models.training.errors import RecipeInvalid, ServiceFailed
from models.training.recipe import (
    DistilRecipe,
    ExportRecipe,
    GrpoRecipe,
    LookRecipe,
    PrepareRecipe,
    SftRecipe,
    SplitRecipe,
)
from models.training.run import run

pytestmark = pytest.mark.usefixtures("jobs")

NOBODY = "http://127.0.0.1:9"


def test_prepare_ends_in_the_record_file(published, tmp_path):
    output = tmp_path / "made" / "records.jsonl"
    recipe = PrepareRecipe.model_validate({
        "job": "prepare",
        "prepare": {
            "sources": [{"format": "rlhf-v", "path": published["rlhf-v"]}],
            "output": output,
        },
    })  # fmt: skip
    assert run(recipe, "my command") == output
    assert len(list(read_records(output, PreferenceRecord))) == 3
    cards = [file.read_text() for file in output.parent.glob("*.md")]
    assert any("my command" in card for card in cards)


def test_split_ends_in_the_folder_of_its_sets(judged, tmp_path):
    file = tmp_path / "judged.jsonl"
    write_records(file, [judged(n, right=n % 3 > 0) for n in range(12)], JudgedRecord)
    recipe = SplitRecipe.model_validate({"job": "split", "split": {"judged": file}})
    assert run(recipe) == tmp_path
    hard = list(read_records(tmp_path / "grm_rl.jsonl", JudgedRecord))
    assert len(hard) == 4
    assert not any(record.teacher_is_right for record in hard)


def test_distil_of_no_records_asks_nobody(tmp_path):
    write_records(tmp_path / "records.jsonl", [], PreferenceRecord)
    output = tmp_path / "judged.jsonl"
    recipe = DistilRecipe.model_validate({
        "job": "distil",
        "records": tmp_path / "records.jsonl",
        "distil": {"base_url": f"{NOBODY}/v1", "model": "teacher", "output": output},
    })  # fmt: skip
    assert run(recipe) == output
    assert list(read_records(output, JudgedRecord)) == []


def test_distil_of_records_that_are_not_there_says_so(tmp_path):
    recipe = DistilRecipe.model_validate({
        "job": "distil",
        "records": tmp_path / "absent.jsonl",
        "distil": {
            "base_url": f"{NOBODY}/v1",
            "model": "teacher",
            "output": tmp_path / "judged.jsonl",
        },
    })  # fmt: skip
    with pytest.raises(ModelsError, match=r"absent\.jsonl"):
        run(recipe)


def test_sft_goes_to_its_job(untrained, tiny_prompts, tmp_path):
    recipe = SftRecipe.model_validate({
        "job": "sft",
        "role": "judge",
        "model": str(untrained),
        "run": tmp_path / "run",
        "data": {"source": "records", "path": tmp_path / "absent.jsonl", "prompts": tiny_prompts},
    })  # fmt: skip
    with pytest.raises(RecipeInvalid, match=r"data\.path: .*absent\.jsonl"):
        run(recipe)


@pytest.mark.parametrize("job", ["look", "sft", "grpo"])
def test_a_finished_run_is_not_run_again(job, tiny_prompts, tmp_path):
    data = {"source": "toyworld", "prompts": tiny_prompts}
    fields = {
        "look": {"scenes": 1, "prompts": tiny_prompts},
        "sft": {"role": "judge", "model": "absent", "data": data},
        "grpo": {"role": "proxy", "model": "absent", "aggregation": "none", "data": data},
    }
    kind = {"look": LookRecipe, "sft": SftRecipe, "grpo": GrpoRecipe}[job]
    place = tmp_path / "run"
    (place / "model").mkdir(parents=True)
    recipe = kind.model_validate({"job": job, "run": place} | fields[job])
    assert run(recipe) == place / "model"
    assert list((place / "model").iterdir()) == []


def test_grpo_with_a_release_of_its_own_starts_a_service_first(tiny_prompts, tmp_path):
    recipe = GrpoRecipe.model_validate({
        "job": "grpo",
        "role": "judge",
        "model": "absent",
        "run": tmp_path / "run",
        "proxy_release": tmp_path / "absent",
        "data": {"source": "toyworld", "prompts": tiny_prompts},
    })  # fmt: skip
    with pytest.raises(ServiceFailed, match=str(tmp_path / "run" / "service" / "service.log")):
        run(recipe)


def test_export_ends_in_the_release(untrained, tiny_prompts, tmp_path):
    recipe = ExportRecipe.model_validate({
        "job": "export",
        "name": "small",
        "purpose": "demo",
        "base_model": "none",
        "judge": untrained,
        "prompts": tiny_prompts,
        "run": tmp_path / "run",
        "calibration_cases": 0,
        "evaluation_cases": 0,
    })  # fmt: skip
    folder = run(recipe)
    assert folder == tmp_path / "run" / "release"
    assert json.loads((folder / "judge" / "config.json").read_text())["model_type"] == "qwen2_5_vl"
