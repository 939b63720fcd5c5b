from __future__ import annotations

import random
import unicodedata

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLForConditionalGeneration

from models.judgement import verdict_prefix
from models.neutralise import Neutraliser
from models.prompts import read_prompts
from models.release import control_tokens
from models.rubric import Rubric
from models.toyworld import make_case
from models.toyworld.phrasing import NAMES
from models.toyworld.scene import COLUMNS, ROWS, draw
from models.training.collate import chat_messages
from models.training.examples import Mixture, judge_example
from models.training.tiny import PROMPTS_DIR, network

PROMPTS = read_prompts(PROMPTS_DIR)
FEW = 60
# NFC of what both Python's tables and the tokenizer's know.
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]))

tokenizer = network.build_tokenizer(PROMPTS, seed=0, cases=FEW)


# The tokenizer


@given(ANY_TEXT)
@example("schön 👩‍👩‍👧 \u202e\0\r\n\t  双")
@settings(deadline=None)
def test_any_text_survives_encoding_and_decoding(text):
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"], max_codepoint=0x2FF)))
@settings(deadline=None)
def test_text_without_combining_signs_survives_letter_by_letter(text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("token", network.SPECIAL_TOKENS)
def test_every_special_token_is_one_token(token):
    (token_id,) = tokenizer.encode(token)
    assert tokenizer.decode([token_id]) == token
    assert len(tokenizer.encode(f"a{token}b")) == 3


def test_the_vocabulary_holds_every_byte_and_is_no_larger_than_asked():
    assert 256 + len(network.SPECIAL_TOKENS) <= len(tokenizer) <= network.VOCABULARY


def test_training_knows_every_control_token_that_serving_knows(untrained, processor):
    assert {*tokenizer.all_special_tokens} == {*network.SPECIAL_TOKENS}
    assert {*control_tokens(untrained)} == {*network.SPECIAL_TOKENS}
    assert {*processor.tokenizer.get_added_vocab()} == {*network.SPECIAL_TOKENS}


def test_a_turn_ends_with_its_own_token():
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"


def test_the_same_seed_builds_the_same_tokenizer():
    again, other = (network.build_tokenizer(PROMPTS, seed, cases=FEW) for seed in (0, 1))
    assert again.get_vocab() == tokenizer.get_vocab()
    assert other.get_vocab() != tokenizer.get_vocab()


@pytest.mark.parametrize("label", ["1", "2"])
def test_each_label_is_one_token_after_the_verdict_prefix(label):
    tail = tokenizer.encode(verdict_prefix(None))
    assert tokenizer.encode(verdict_prefix(None) + label) == [*tail, *tokenizer.encode(label)]
    assert len(tokenizer.encode(label)) == 1


def test_the_chat_template_writes_turns_as_qwen_does():
    case, neutralise = make_case(random.Random(1)), Neutraliser(network.SPECIAL_TOKENS)
    shown = judge_example(case, PROMPTS, neutralise, random.Random(0), Mixture())
    asked = tokenizer.apply_chat_template(
        chat_messages(shown), tokenize=False, add_generation_prompt=True
    )
    user = "".join(
        part if isinstance(part, str) else "<|vision_start|><|image_pad|><|vision_end|>"
        for part in shown.user
    )
    assert asked == (
        f"<|im_start|>system\n{shown.system}<|im_end|>\n"
        f"<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_chat_template_takes_plain_text_too():
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_a_response_is_called_is_one_token_in_prompts_and_evaluations(name):
    (called,) = tokenizer.encode(name)
    for text in (f"<response_1>\n{name}: 3", f"first: number\n{name} number 3, is 3: correct"):
        assert tokenizer.encode(text).count(called) == 1


@pytest.mark.parametrize("layout", PROMPTS)
def test_prompts_call_the_responses_what_evaluations_call_them(layout):
    comparison = make_case(random.Random(2)).labeled().comparison
    rubric = None if layout == "write_rubric" else Rubric("1. Form (100%): one word.")
    filled = PROMPTS[layout].fill(comparison, Neutraliser(network.SPECIAL_TOKENS), rubric)
    for name, response in zip(NAMES, comparison.responses, strict=True):
        assert f"\n{name}: {response}\n" in f"{filled.user[-1]}\n"


# The processor


def test_a_drawing_is_one_token_a_cell(processor):
    picture = draw(make_case(random.Random(0)).scene)
    inputs = processor(text=["<|image_pad|>"], images=[[picture]])
    (grid,) = inputs["image_grid_thw"]
    assert int(grid[0] * grid[1] * grid[2]) // 4 == len(ROWS) * len(COLUMNS)
    (ids,) = inputs["input_ids"]
    (pad,) = tokenizer.encode("<|image_pad|>")
    assert list(ids) == [pad] * (len(ROWS) * len(COLUMNS))


# The network


def test_the_network_is_a_small_qwen(untrained):
    found = Qwen2_5_VLForConditionalGeneration.from_pretrained(untrained)
    assert found.config.model_type == "qwen2_5_vl"
    assert sum(parameter.numel() for parameter in found.parameters()) < 2_000_000
    assert found.get_input_embeddings().weight is found.lm_head.weight
    assert all(torch.isfinite(tensor).all() for tensor in found.state_dict().values())


def test_the_random_state_alone_decides_the_weights():
    def built(seed):
        torch.manual_seed(seed)
        return network.build_model(tokenizer).state_dict()

    one, again, other = built(3), built(3), built(4)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_special_tokens_of_network_and_tokenizer_are_the_same():
    config = network.build_model(tokenizer).config
    ids = tokenizer.get_vocab()
    assert config.image_token_id == ids["<|image_pad|>"]
    assert config.video_token_id == ids["<|video_pad|>"]
    assert config.vision_start_token_id == ids["<|vision_start|>"]
    assert config.get_text_config().eos_token_id == ids["<|im_end|>"]
    assert config.get_text_config().vocab_size >= len(tokenizer)


def test_what_is_saved_is_in_the_layout_that_serving_loads(untrained):
    for file in ("config.json", "tokenizer.json", "model.safetensors", "preprocessor_config.json"):
        candidates = [untrained / file, untrained / "processor_config.json"]
        assert any(path.exists() and path.stat().st_size > 0 for path in candidates)


def test_the_first_layer_begins_by_looking_back():
    torch.manual_seed(0)
    model = network.build_model(tokenizer)
    text = model.config.text_config
    width = text.hidden_size // text.num_attention_heads
    attention = model.model.language_model.layers[0].self_attn
    queries, keys = (
        projection.bias.view(-1, width) for projection in (attention.q_proj, attention.k_proj)
    )
    turns = text.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    for head, distance in enumerate((1, 2, 3, 0)):
        scores = []
        for back in range(12):  # a key this far back, as RoPE turns it against the query
            cos, sin = (turns * back).cos(), (turns * back).sin()
            one, two = queries[head].chunk(2)
            turned = torch.cat([one * cos - two * sin, one * sin + two * cos])
            scores.append((turned @ keys[head]).item())
        assert scores.index(max(scores)) == distance
