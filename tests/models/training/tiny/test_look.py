from __future__ import annotations

import random

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import Qwen2_5_VLForConditionalGeneration
from trl import SFTConfig

from models.toyworld import make_case
from models.toyworld.scene import CELLS, COLOURS, DIGITS, SHAPES, SIZES, SceneObject, arrange
from models.training.tiny.look import (
    CELL_WORDS,
    CellProbe,
    LookCollator,
    LookTrainer,
    look_examples,
    shown_in_cells,
)


@pytest.fixture
def trainer(untrained, processor, tmp_path):
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        max_length=None,
    )
    network = Qwen2_5_VLForConditionalGeneration.from_pretrained(untrained)
    return LookTrainer(network, arguments, LookCollator(processor), look_examples(8, 0, 5), 3.0)


# Scenes


def test_scenes_depend_on_seed_and_index_alone():
    one, again, other = (look_examples(100, seed, 5) for seed in (0, 0, 1))
    assert one[42]["example"].answer == again[42]["example"].answer
    assert one[42]["example"].scene == again[42]["example"].scene
    assert one[42]["example"].scene != other[42]["example"].scene
    assert one[42]["example"].scene != one[43]["example"].scene


def test_scenes_are_looked_at_and_no_claim_is_checked():
    for row in look_examples(20, 0, 12):
        lines = "".join(row["example"].answer).splitlines()
        assert 1 <= len(lines) <= 12
        assert not any(line.endswith((": correct", ": wrong")) for line in lines)


def test_what_cells_show_is_what_the_scene_has():
    for seed in range(20):
        scene = make_case(random.Random(seed)).scene
        answers = shown_in_cells(scene)
        assert answers.shape == (CELLS * CELLS, len(CELL_WORDS))
        at = {o.row * CELLS + o.column: o for o in scene.objects}
        for cell, answer in enumerate(answers):
            words = {word for word, there in zip(CELL_WORDS, answer, strict=True) if there}
            seen = words & {*COLOURS, *SHAPES, *SIZES, *DIGITS}
            found = at.get(cell)
            assert seen == ({found.colour, found.shape, found.size} if found else set())


def test_an_empty_cell_shows_nothing():
    scene = arrange([SceneObject("star", "red", "large", 0, 1)])
    answers = shown_in_cells(scene)
    kinds = [CELL_WORDS.index(word) for word in (*COLOURS, *SHAPES, *SIZES, *DIGITS)]
    assert answers[:, kinds].sum().item() == 3
    assert answers[1, CELL_WORDS.index("star")] == 1
    assert not answers[2, kinds].any()


def test_a_batch_has_the_answers_of_its_scenes(processor):
    examples = look_examples(3, 0, 5)[:]["example"]
    batch = LookCollator(processor)(examples)
    expected = torch.stack([shown_in_cells(example.scene) for example in examples])
    assert torch.equal(batch["probe_answers"], expected)
    assert len(batch["input_ids"]) == 3


# The probe


def test_the_probe_asks_every_token_for_every_word():
    probe = CellProbe([3, 5, 8])
    logits = probe(torch.randn(7, 16), torch.randn(10, 16))
    assert logits.shape == (7, 3)


def test_a_token_like_a_word_is_taken_for_it():
    embeddings = torch.eye(6)
    logits = CellProbe([1, 4])(10 * embeddings[[4, 1, 0]], embeddings)
    assert [[value > 0 for value in row] for row in logits.tolist()] == [
        [False, True],
        [True, False],
        [False, False],
    ]


def test_the_probe_asks_by_one_token_for_each_word(trainer, processor):
    tokens = trainer.model.probe.word_ids.tolist()
    assert len({*tokens}) == len(CELL_WORDS)


def test_the_loss_is_that_of_the_facts_and_of_the_probe(trainer, processor):
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(4)])
    answers = batch["probe_answers"]
    facts = super(LookTrainer, trainer).compute_loss(
        trainer.model, {name: value for name, value in batch.items() if name != "probe_answers"}
    )
    seen = trainer.model.model.visual(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
    found = trainer.model.probe(seen, trainer.model.get_input_embeddings().weight)
    probe = binary_cross_entropy_with_logits(found.view_as(answers), answers)
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx((facts + 3.0 * probe).item(), rel=1e-5)
    loss.backward()
    assert trainer.model.probe.bias.grad is not None
    assert trainer.model.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0


def test_only_the_probe_is_added_to_the_network(trainer, untrained):
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(untrained).state_dict()
    added = {*trainer.model.state_dict()} - {*plain}
    assert added == {"probe.bias"}
    del trainer.model.probe
    assert {*trainer.model.state_dict()} == {*plain}
