"""A trained model as a release carries it: whole weights in one layout, nothing of the training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoModelForImageTextToText, AutoProcessor

from models.training.errors import RecipeInvalid


def save_weights(model: Path, target: Path) -> None:
    """Writes weights, tokenizer and processor in the Hugging Face layout.

    A PEFT adapter is merged into the base that it names.

    Args:
        model: a finished model, or a PEFT adapter with its processor.
        target: replaced if it is there.
    """
    shutil.rmtree(target, ignore_errors=True)
    _load(model).save_pretrained(target)
    AutoProcessor.from_pretrained(model).save_pretrained(target)


def _load(model: Path) -> Any:
    if not (model / "adapter_config.json").exists():
        return AutoModelForImageTextToText.from_pretrained(model, dtype="auto")
    from peft import PeftConfig, PeftModel

    base = PeftConfig.from_pretrained(str(model)).base_model_name_or_path
    if base is None:
        raise RecipeInvalid(f"{model}/adapter_config.json does not say what its base model is")
    whole = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
    return PeftModel.from_pretrained(whole, str(model)).merge_and_unload()
