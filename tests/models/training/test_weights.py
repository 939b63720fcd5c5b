from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, Qwen2_5_VLProcessor

from models.release import control_tokens
from models.toyworld import make_case
from models.training.weights import save_weights


@pytest.fixture(scope="module")
def adapter(untrained, tmp_path_factory):
    """A LoRA adapter of the untrained network that changes it, and its processor."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    base = AutoModelForImageTextToText.from_pretrained(untrained)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "qkv"], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(folder)
    Qwen2_5_VLProcessor.from_pretrained(untrained).save_pretrained(folder)
    return folder


@pytest.fixture
def logits(processor):
    """What a model says about a drawn case, (1, T, V)."""
    case = make_case(random.Random(0))
    text = f"<|vision_start|><|image_pad|><|vision_end|>{case.question}\n{case.responses[0]}"
    inputs = processor(text=[text], images=[case.picture()], return_tensors="pt")

    def say(model):
        with torch.no_grad():
            return model.eval()(**inputs).logits.float()

    return say


def loaded(folder, **options):
    return AutoModelForImageTextToText.from_pretrained(folder, **options)


def test_whole_weights_are_written_as_they_are(untrained, tmp_path, logits):
    save_weights(untrained, tmp_path / "judge")
    assert torch.equal(logits(loaded(tmp_path / "judge")), logits(loaded(untrained)))
    for file in ("config.json", "tokenizer.json", "processor_config.json", "model.safetensors"):
        assert (tmp_path / "judge" / file).stat().st_size > 0


def test_the_tokenizer_keeps_its_control_tokens_and_its_template(untrained, tmp_path):
    save_weights(untrained, tmp_path / "judge")
    assert control_tokens(tmp_path / "judge") == control_tokens(untrained)
    before = Qwen2_5_VLProcessor.from_pretrained(untrained)
    after = Qwen2_5_VLProcessor.from_pretrained(tmp_path / "judge")
    assert after.chat_template == before.chat_template
    assert after.image_processor.to_dict() == before.image_processor.to_dict()


def test_half_precision_stays_half(untrained, tmp_path):
    half = tmp_path / "half"
    loaded(untrained, dtype=torch.bfloat16).save_pretrained(half)
    Qwen2_5_VLProcessor.from_pretrained(untrained).save_pretrained(half)
    save_weights(half, tmp_path / "judge")
    assert loaded(tmp_path / "judge", dtype="auto").dtype == torch.bfloat16
    assert json.loads((tmp_path / "judge" / "config.json").read_text())["dtype"] == "bfloat16"


def test_nothing_of_the_training_comes_along(untrained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(untrained, model)
    for leftover in ("optimizer.pt", "training_args.bin", "trainer_state.json"):
        (model / leftover).write_bytes(b"training")
    save_weights(model, tmp_path / "judge")
    names = {file.name for file in (tmp_path / "judge").iterdir()}
    assert not names & {"optimizer.pt", "training_args.bin", "trainer_state.json"}


def test_what_was_there_before_is_replaced(untrained, tmp_path):
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "model-00001-of-00002.safetensors").write_bytes(b"older")
    save_weights(untrained, tmp_path / "judge")
    assert [file.name for file in (tmp_path / "judge").glob("*.safetensors")] == [
        "model.safetensors"
    ]


def test_an_adapter_is_merged_into_its_base(untrained, adapter, tmp_path, logits):
    save_weights(adapter, tmp_path / "judge")
    merged = logits(loaded(tmp_path / "judge"))
    unmerged = logits(PeftModel.from_pretrained(loaded(untrained), adapter))
    assert torch.allclose(merged, unmerged, atol=1e-4)
    assert not torch.allclose(merged, logits(loaded(untrained)), atol=1e-2)
    names = {file.name for file in (tmp_path / "judge").iterdir()}
    assert not {name for name in names if name.startswith("adapter")}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert json.loads((tmp_path / "judge" / "config.json").read_text())["model_type"] == (
        "qwen2_5_vl"
    )
