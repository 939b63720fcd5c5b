from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration
from trl import SFTConfig

from models.comparison import JudgeImage
from models.training.collate import ExampleCollator
from models.training.examples import Example
from models.training.supervised import LikeLengths, WeightedSftTrainer, lazy_examples

LENGTHS = st.lists(st.integers(0, 1000), max_size=200)
SMALL = st.integers(1, 12)
PICTURE = JudgeImage(Image.new("RGB", (56, 56), "white"), "white")


def example(number):
    words = " ".join(["red circle"] * (1 + number % 5))
    user = (PICTURE, f"case {number}") if number % 2 else (f"case {number}",)
    return Example("Say it.", user, ("It is ", words, " and ", str(number)))


# Examples on demand


def test_an_example_is_made_when_it_is_read():
    made = Counter()

    def make(index):
        made[index] += 1
        return example(index)

    examples = lazy_examples(1_000_000, make)
    assert len(examples) == 1_000_000
    assert not made
    assert examples[999_999]["example"] == example(999_999)
    assert examples[[3, 3, 1]]["example"] == [example(3), example(3), example(1)]
    assert made == {999_999: 1, 3: 2, 1: 1}


# The order


def order(lengths, batch, seed=0, epoch=0, group=4):
    sampler = LikeLengths(lengths, batch, seed, group)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(lengths)
    return list(sampler)


def in_batches(indices, batch):
    return [indices[at : at + batch] for at in range(0, len(indices), batch)]


@given(LENGTHS, SMALL, SMALL, st.integers(0, 5))
@settings(deadline=None)
def test_an_order_has_every_example_once(lengths, batch, group, epoch):
    found = order(lengths, batch, epoch=epoch, group=group)
    assert sorted(found) == list(range(len(lengths)))


@given(LENGTHS, SMALL, SMALL)
@settings(deadline=None)
def test_a_batch_holds_the_next_lengths_of_its_group(lengths, batch, group):
    found = order(lengths, batch, group=group)
    for together in in_batches(found, batch * group):
        spans = sorted(
            (min(lengths[i] for i in b), max(lengths[i] for i in b))
            for b in in_batches(together, batch)
        )
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@given(LENGTHS, SMALL, SMALL)
@settings(deadline=None)
def test_only_the_last_batch_may_be_short(lengths, batch, group):
    # A short batch elsewhere would shift all that follow: the trainer cuts by number alone.
    found = order(lengths, batch, group=group)
    whole = len(lengths) // batch * batch
    last = [lengths[i] for i in found[whole:]]
    group_start = (len(lengths) - 1) // (batch * group) * batch * group if lengths else 0
    assert not last or min(last) >= max((lengths[i] for i in found[group_start:whole]), default=0)


def test_the_seed_and_the_epoch_alone_decide_the_order():
    lengths = [random.Random(1).randrange(100) for _ in range(300)]
    assert order(lengths, 4) == order(lengths, 4)
    orders = {tuple(order(lengths, 4, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_a_sampler_gives_the_same_order_each_time_it_is_read():
    sampler = LikeLengths(list(range(50)), 4, seed=0)
    assert list(sampler) == list(sampler)


def test_short_and_long_batches_are_mixed():
    lengths = list(range(1000))
    means = [sum(b) / len(b) for b in in_batches(order(lengths, 5, group=20), 5)]
    longer_next = sum(b > a for a, b in itertools.pairwise(means[:-20])) / (len(means) - 21)
    assert 0.3 < longer_next < 0.7


def test_padding_is_spared():
    rng = random.Random(0)
    lengths = [rng.randrange(20, 400) for _ in range(960)]

    def padding(indices):
        batches = in_batches([lengths[i] for i in indices], 8)
        return sum(max(b) * len(b) - sum(b) for b in batches)

    assert padding(order(lengths, 8, group=24)) < 0.1 * padding(range(960))


def test_without_examples_there_is_no_order():
    assert order([], 4) == []


# The loss


@pytest.fixture
def arguments(tmp_path):
    return SFTConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        max_length=None,
        per_device_train_batch_size=4,
        save_strategy="no",
        seed=7,
    )


def network(untrained):
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(untrained, dtype="auto")


@pytest.fixture
def collate(processor):
    return ExampleCollator(processor, {"red", "circle"}, label_weight=5.0)


def trainer_of(untrained, arguments, collate, lengths=None):
    return WeightedSftTrainer(
        network(untrained), arguments, collate, lazy_examples(12, example), lengths
    )


def by_hand(model, batch):
    """The weighted mean of the cross entropy on the full logits."""
    inputs = {
        name: value for name, value in batch.items() if name not in ("labels", "loss_weights")
    }
    logits_BTV = model(**inputs).logits.float()
    total = weights = 0.0
    for row in range(len(batch["labels"])):
        for place in range(1, batch["labels"].shape[1]):
            weight = batch["loss_weights"][row, place]
            if weight:
                logits_V = logits_BTV[row, place - 1]
                label = batch["labels"][row, place]
                total = total + weight * (logits_V.logsumexp(0) - logits_V[label])
                weights = weights + weight
    return total / weights


def test_the_loss_and_its_gradient_are_those_of_the_full_logits(untrained, arguments, collate):
    trainer = trainer_of(untrained, arguments, collate)
    batch = collate([example(number) for number in range(4)])
    assert {0.0, 1.0, 5.0} == {*batch["loss_weights"].unique().tolist()}
    reference = network(untrained).train()
    expected = by_hand(reference, batch)
    loss = trainer.compute_loss(trainer.model.train(), batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for name, parameter in reference.named_parameters():
        found = trainer.model.get_parameter(name).grad
        assert torch.allclose(found, parameter.grad, rtol=1e-3, atol=1e-6), name


def test_padding_changes_no_loss(untrained, arguments, collate):
    trainer = trainer_of(untrained, arguments, collate)
    alone = trainer.compute_loss(trainer.model, collate([example(1)])).item()
    batch = collate([example(1), example(4)])
    batch["loss_weights"][1] = 0.0
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(alone, rel=1e-4)


def test_a_batch_without_anything_to_learn_has_a_loss_of_nothing(untrained, arguments, collate):
    trainer = trainer_of(untrained, arguments, collate)
    batch = collate([example(0)])
    batch["loss_weights"][:] = 0.0
    batch["labels"][:] = -100
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    assert loss.item() == 0.0


def test_computing_a_loss_leaves_the_batch_as_it_was(untrained, arguments, collate):
    trainer = trainer_of(untrained, arguments, collate)
    batch = collate([example(0)])
    names = {*batch}
    trainer.compute_loss(trainer.model, batch)
    assert {*batch} == names


def test_the_trainers_batches_hold_examples_of_like_length(untrained, arguments, collate):
    trainer = trainer_of(untrained, arguments, collate, [example(n).length for n in range(12)])
    batches = list(trainer.get_train_dataloader())
    assert [len(batch["input_ids"]) for batch in batches] == [4, 4, 4]
    sampler = LikeLengths([example(n).length for n in range(12)], 4, seed=7)
    expected = [collate([example(i) for i in b]) for b in in_batches(list(sampler), 4)]
    for found, wanted in zip(batches, expected, strict=True):
        assert torch.equal(found["input_ids"].cpu(), wanted["input_ids"])
        assert torch.equal(found["loss_weights"].cpu(), wanted["loss_weights"])
