"""The release that ships, loaded by transformers itself."""

from __future__ import annotations

import random

import pytest

from models import torchvision_guard
from models.judgement import read_judgement
from models.release import load_release
from models.toyworld import CaseOptions, make_case

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and transformers' own

RELEASE = load_release("tiny")


def test_it_is_small_enough_to_ship_and_says_that_it_is_a_demo() -> None:
    files = RELEASE.judge.folder.parent.rglob("*")
    size = sum(file.stat().st_size for file in files if file.is_file())
    assert size <= 16 * 2**20
    assert RELEASE.config.purpose == "demo"


def test_transformers_loads_it_and_it_answers_in_the_grammar() -> None:
    torchvision_guard.install()
    import torch
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(RELEASE.judge.folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(RELEASE.judge.folder).eval()
    assert 1e6 <= sum(p.numel() for p in model.parameters()) <= 3e6
    readable = 0
    for seed in range(4):
        case = make_case(random.Random(seed), CaseOptions(stratum="image", family="count"))
        prompt = RELEASE.judge.prompts["write_rubric"].fill(
            case.labeled().comparison, RELEASE.judge.neutralise
        )
        user = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in prompt.user
        ]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
            {"role": "user", "content": user},
        ]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=text, images=[case.picture()], return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=200, do_sample=False)
        answer = processor.decode(
            output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        read_judgement(answer)
        readable += 1
    assert readable == 4


@pytest.mark.parametrize(
    "text", ["plain", "naïve façade", "你好，世界", "🙂‍↔️", "\x00\x7f", "a\u0301", "ﷺ", "\U0010ffff"]
)
def test_its_tokenizer_round_trips_any_unicode(text: str) -> None:
    import unicodedata

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(RELEASE.judge.folder / "tokenizer.json"))
    encoded = tokenizer.encode(text)
    # Like Qwen2.5's own, it normalises to NFC first.
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == unicodedata.normalize(
        "NFC", text
    )
