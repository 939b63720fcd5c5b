from __future__ import annotations

import functools
import json
import math
import random
import shutil
import unicodedata

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.judgement import verdict_prefix
from models.neutralise import Neutraliser
from models.prompts import read_prompts
from models.release import SHIPPED_DIR, control_tokens
from models.toyworld import make_case
from models.toyworld.scene import SIDE
from models.training import tiny, tiny_model
from models.training.examples import caption_example, chat_text, judgement_example

PROMPTS = read_prompts(SHIPPED_DIR / "tiny" / "prompts")
RECIPE = tiny.Recipe(seed=3, caption_steps=2, judgement_steps=2, batch=4, warmup_steps=2)
build_tokenizer = functools.partial(tiny_model.build_tokenizer, cases=60)
"""The same tokenizer from fewer cases: a moment instead of ten seconds."""

neutralise = Neutraliser(tiny_model.SPECIAL_TOKENS)
tokenizer = build_tokenizer(PROMPTS, seed=0)
# NFC of what both Python's tables and the tokenizer's know.
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cn"]))


@pytest.fixture(scope="module")
def processor():
    return tiny_model.build_processor(tokenizer, most_pixels=SIDE * SIDE)


@pytest.fixture(scope="module", autouse=True)
def _quick_and_alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other on a busy machine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "build_tokenizer", build_tokenizer)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("finished")
    tiny.train(RECIPE, run, PROMPTS)
    return run


def weights(run):
    return torch.load(run / "checkpoint.pt", weights_only=True)["model"]


def assert_same_weights(one, two):
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


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


@pytest.mark.parametrize("token", tiny_model.SPECIAL_TOKENS)
def test_every_special_token_is_one_token(token):
    (token_id,) = tokenizer.encode(token)
    assert tokenizer.decode([token_id]) == token
    assert len(tokenizer.encode(f"a{token}b")) == 3


def test_the_vocabulary_holds_every_byte_and_is_no_larger_than_asked():
    assert 256 + len(tiny_model.SPECIAL_TOKENS) <= len(tokenizer) <= tiny_model.VOCABULARY


def test_training_knows_every_control_token_that_serving_knows():
    assert set(tokenizer.all_special_tokens) == set(tiny_model.SPECIAL_TOKENS)


def test_a_turn_ends_with_its_own_token():
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"


def test_the_same_seed_builds_the_same_tokenizer():
    assert build_tokenizer(PROMPTS, seed=0).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("label", ["1", "2"])
def test_each_label_is_one_token_after_the_verdict_prefix(label):
    tail = tokenizer.encode(verdict_prefix(None))
    assert tokenizer.encode(verdict_prefix(None) + label) == [*tail, *tokenizer.encode(label)]
    assert len(tokenizer.encode(label)) == 1


def test_the_chat_template_writes_what_training_shows():
    case = make_case(random.Random(1))
    for seed in range(6):
        shown = judgement_example(case, PROMPTS, neutralise, random.Random(seed))
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in shown.user
        ]
        messages = [
            {"role": "system", "content": shown.system},
            {"role": "user", "content": parts},
        ]
        asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert chat_text(shown) == f"{asked}{shown.answer}<|im_end|>\n"


# Batches


def test_only_answers_are_learned(processor):
    batches = tiny.Batches(RECIPE, PROMPTS, processor, first_step=0)
    rng = random.Random(0)
    examples = [caption_example(make_case(rng)), caption_example(make_case(rng))]
    examples.append(judgement_example(make_case(rng), PROMPTS, neutralise, rng))
    batch = batches.batch(examples)
    learned = [
        tokenizer.decode(ids[labels != -100])
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    assert learned == [f"{e.answer}<|im_end|>\n" for e in examples]
    assert torch.equal(batch["weights"] > 0, batch["labels"] != -100)


def test_words_that_carry_a_label_weigh_more(processor):
    recipe = tiny.Recipe(label_weight=5.0)
    batch = tiny.Batches(recipe, PROMPTS, processor, 0).batch(
        [caption_example(make_case(random.Random(0)))]
    )
    words = [tokenizer.decode([i]).strip() for i in batch["input_ids"][0]]
    by_weight = {5.0: set(), 1.0: set(), 0.0: set()}
    for word, weight in zip(words, batch["weights"][0].tolist(), strict=True):
        by_weight[weight].add(word)
    assert by_weight[5.0] & {*tiny.COLOURS, *tiny.SHAPES}
    assert not by_weight[1.0] & {*tiny.COLOURS, *tiny.SHAPES}
    assert "," in by_weight[1.0]


def test_a_picture_becomes_one_token_a_patch(processor):
    batch = tiny.Batches(RECIPE, PROMPTS, processor, 0).batch(
        [caption_example(make_case(random.Random(0)))] * 2
    )
    (pad,) = tokenizer.encode("<|image_pad|>")
    assert batch["image_grid_thw"].tolist() == [[1, 8, 8]] * 2
    assert (batch["input_ids"] == pad).sum(dim=1).tolist() == [16, 16]


def test_a_batch_depends_on_the_seed_and_the_step_alone(processor):
    from_start = list(tiny.Batches(RECIPE, PROMPTS, processor, first_step=0))
    from_third = list(tiny.Batches(RECIPE, PROMPTS, processor, first_step=2))
    assert len(from_start) == RECIPE.steps == 4
    for one, two in zip(from_start[2:], from_third, strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(from_start[0]["pixel_values"], from_start[1]["pixel_values"])


def test_captions_come_first_and_judgements_after(processor):
    recipe = tiny.Recipe(seed=1, caption_steps=1, judgement_steps=1, captions_mixed_in=0, batch=3)
    first, second = (
        tokenizer.batch_decode(batch["input_ids"])
        for batch in tiny.Batches(recipe, PROMPTS, processor, first_step=0)
    )
    assert ["<answer>" in text for text in first] == [False] * 3
    assert ["<answer>" in text for text in second] == [True] * 3


# The recipe and the loss


def test_the_learning_rate_rises_then_falls_to_a_twentieth():
    recipe = tiny.Recipe(
        caption_steps=60, judgement_steps=140, learning_rate=1e-3, warmup_steps=100
    )
    assert recipe.steps == 200
    assert recipe.learning_rate_at(0) == pytest.approx(1e-5)
    assert recipe.learning_rate_at(49) == pytest.approx(5e-4)
    assert recipe.learning_rate_at(99) == pytest.approx(1e-3)
    assert recipe.learning_rate_at(100) == pytest.approx(1e-3)
    assert recipe.learning_rate_at(150) == pytest.approx(1e-3 * 0.525)
    assert recipe.learning_rate_at(200) == pytest.approx(5e-5)


def test_a_run_shorter_than_its_warm_up_has_a_learning_rate():
    recipe = tiny.Recipe(caption_steps=1, judgement_steps=1, warmup_steps=100)
    assert 0 < recipe.learning_rate_at(0) < recipe.learning_rate_at(1) < recipe.learning_rate


def test_the_loss_counts_each_target_by_its_weight():
    logits_BTV = torch.tensor([[[math.log(3), 0.0], [math.log(3), 0.0], [9.0, 0.0]]])
    labels_BT = torch.tensor([[-100, 0, 1]])
    weights_BT = torch.tensor([[0.0, 1.0, 3.0]])
    # P(0) = 3/4 and P(1) = 1/4 at the two places that have a next token.
    expected = (-math.log(3 / 4) - 3 * math.log(1 / 4)) / 4
    assert tiny.weighted_loss(logits_BTV, labels_BT, weights_BT).item() == pytest.approx(expected)


def test_targets_that_are_not_learned_do_not_count():
    logits_BTV = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    labels_BT = torch.tensor([[-100, -100, 3, 1], [-100, 2, -100, -100]])
    weights_BT = (labels_BT != -100).float()
    loss = tiny.weighted_loss(logits_BTV, labels_BT, weights_BT)
    logits_BTV[0, 0] += torch.arange(5)  # predicts a target that is not learned
    assert torch.equal(tiny.weighted_loss(logits_BTV, labels_BT, weights_BT), loss)


# Runs


def test_a_run_ends_in_a_judge_that_a_release_can_name(finished_run):
    judge = finished_run / "judge"
    for file in ("config.json", "tokenizer.json", "model.safetensors", "processor_config.json"):
        assert (judge / file).stat().st_size > 0
    assert json.loads((judge / "config.json").read_text())["model_type"] == "qwen2_5_vl"
    assert set(control_tokens(judge)) == set(tiny_model.SPECIAL_TOKENS)
    assert not (finished_run / "checkpoint.partial").exists()


def test_training_changes_every_weight_and_leaves_it_finite(finished_run):
    torch.manual_seed(RECIPE.seed)
    untrained = tiny_model.build_model(build_tokenizer(PROMPTS, RECIPE.seed)).state_dict()
    trained = weights(finished_run)
    assert [name for name in trained if torch.equal(trained[name], untrained[name])] == []
    assert all(torch.isfinite(tensor).all() for tensor in trained.values())


def test_a_run_stopped_in_the_middle_ends_with_the_same_weights(
    finished_run, tmp_path, monkeypatch
):
    steps_done = 0
    step = tiny._step

    def stop_after_three(model, optimizer, learning_rate, batch):
        nonlocal steps_done
        if steps_done == 3:
            raise KeyboardInterrupt
        loss = step(model, optimizer, learning_rate, batch)
        steps_done += 1
        if steps_done == 2:
            tiny._checkpoint(tmp_path, RECIPE, model, optimizer, steps_done)
        return loss

    with monkeypatch.context() as stopping:
        stopping.setattr(tiny, "_step", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            tiny.train(RECIPE, tmp_path, PROMPTS)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    (tmp_path / "checkpoint.partial").write_bytes(b"killed while writing")
    tiny.train(RECIPE, tmp_path, PROMPTS)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == RECIPE.steps
    assert_same_weights(weights(tmp_path), weights(finished_run))
    finished = (finished_run / "judge" / "model.safetensors").read_bytes()
    assert (tmp_path / "judge" / "model.safetensors").read_bytes() == finished


def test_a_run_killed_after_its_last_checkpoint_still_ends_in_a_judge(finished_run, tmp_path):
    shutil.copy(finished_run / "checkpoint.pt", tmp_path / "checkpoint.pt")
    judge = tiny.train(RECIPE, tmp_path, PROMPTS)
    finished = (finished_run / "judge" / "model.safetensors").read_bytes()
    assert (judge / "model.safetensors").read_bytes() == finished


def test_a_run_folder_of_another_recipe_is_refused(finished_run):
    other = tiny.Recipe(seed=4, caption_steps=2, judgement_steps=2, batch=4, warmup_steps=2)
    with pytest.raises(SystemExit, match="belongs to another recipe"):
        tiny.train(other, finished_run, PROMPTS)
