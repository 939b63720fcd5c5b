"""Building the embedded judge: a Qwen2.5-VL of about a million parameters, from nothing.

The architecture class, tokenizer class, processor and special tokens are those
of Qwen2.5-VL-7B, so transformers and vLLM load the result with the code they
use for the real one. Sizes follow what trains and serves on two CPU cores.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from models.neutralise import Neutraliser
from models.prompts import Prompts
from models.toyworld import make_case
from models.toyworld.looking import random_facts
from models.toyworld.scene import SIDE
from models.training.examples import Mixture, judge_example

CONTEXT_TOKENS = 4096
VOCABULARY = 640
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_DISTANCES = (1, 2, 3, 0)
"""How far back each head of the first layer looks to begin with, tokens."""
_LOOKING_BACK = 7.0
"""How sharply: the attention logit of each rotating pair at its own distance."""
_SLOWEST_TURN = 0.05
"""Pairs that turn less than this a token, in radians, can't tell neighbours apart."""
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def build_tokenizer(prompts: Prompts, seed: int, cases: int = 4000) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer trained on what the toy world's judges read and write.

    All 256 bytes are in the vocabulary: any text in NFC survives encoding and decoding, as with
    Qwen2.5's own tokenizer, which normalises to NFC first.
    """
    alphabet = sorted(_byte_alphabet())
    empty = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(alphabet)}, merges=[])
    tokenizer = empty.train_new_from_iterator(
        _corpus(prompts, random.Random(seed), cases),
        vocab_size=VOCABULARY,
        new_special_tokens=list(SPECIAL_TOKENS),
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = CONTEXT_TOKENS
    return tokenizer


def build_processor(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLProcessor:
    """The processor that turns chat text and pictures into model inputs."""
    pixels: dict[str, Any] = {"min_pixels": 56 * 56, "max_pixels": SIDE * SIDE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained network; its weights depend on torch's random state alone."""
    ids: dict[str, int] = tokenizer.get_vocab()
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1_000_000.0}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": CONTEXT_TOKENS,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_heads": 2,
            "out_hidden_size": 128,
            "fullatt_block_indexes": [1],
            "window_size": 112,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    _begin_by_looking_back(model)
    return model


def save(
    folder: Path, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor
) -> None:
    """Writes weights, tokenizer and processor in the Hugging Face layout."""
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)


def _begin_by_looking_back(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Has the heads of the first layer begin by reading their own token and those just before.

    Copying and looking up are made of such heads, and finding them takes a small network most of
    its first steps. Query and key biases alone do it: turned by RoPE, their product depends on
    nothing but the distance between two tokens. What is learned may overwrite it.

    Source: after Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers" (2023).
    """
    text: Any = model.config.text_config
    width = text.hidden_size // text.num_attention_heads
    turns = text.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    fast = (turns > _SLOWEST_TURN).float() * (_LOOKING_BACK * width**0.5) ** 0.5
    layers: Any = model.model.language_model.layers
    attention = layers[0].self_attn
    with torch.no_grad():
        queries = attention.q_proj.bias.view(-1, width)
        keys = attention.k_proj.bias.view(-1, width)
        for head, distance in enumerate(_DISTANCES):
            keys[head] = torch.cat([fast, torch.zeros_like(fast)])
            angle = turns * -distance
            queries[head] = torch.cat([fast * angle.cos(), fast * angle.sin()])


def _corpus(prompts: Prompts, rng: random.Random, cases: int) -> Iterator[str]:
    neutralise, mixture = Neutraliser(SPECIAL_TOKENS), Mixture()
    for _ in range(cases):
        case = make_case(rng)
        yield "\n".join(fact.text for fact in random_facts(case.scene, rng, 6))
        example = judge_example(case, prompts, neutralise, rng, mixture)
        for part in (example.system, *example.user, *example.answer):
            if isinstance(part, str):
                yield part


def _byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel.alphabet()
