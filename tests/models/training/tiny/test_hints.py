from __future__ import annotations

import random

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from trl import SFTConfig

from models.neutralise import Neutraliser
from models.prompts import JUDGE_LAYOUTS, PROXY_LAYOUTS, read_prompts
from models.toyworld import CaseOptions, make_case
from models.training.examples import Mixture, judge_example, proxy_example
from models.training.supervised import lazy_examples
from models.training.tiny import PROMPTS_DIR
from models.training.tiny.hints import HintCollator, HintedSftTrainer

PROMPTS = read_prompts(PROMPTS_DIR, (*JUDGE_LAYOUTS, *PROXY_LAYOUTS))
neutralise = Neutraliser(())


def example_of(seed, role="judge", *, at_once=True, given=False, family="digit"):
    case = make_case(random.Random(seed), CaseOptions(stratum="image", family=family))
    mixture = Mixture(
        empty_evaluation=float(at_once),
        rubric_given=float(given),
        vague=0,
        misweighted=0,
        unstated=0,
    )
    write = judge_example if role == "judge" else proxy_example
    return write(case, PROMPTS, neutralise, random.Random(seed), mixture)


def asked_at(batch, name, row, tokenizer):
    """Each asked token of a row, as text."""
    return [
        tokenizer.decode(batch["input_ids"][place[0], place[1]])
        for place in batch[f"{name}_places"]
        if place[0] == row
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"given": True}, {"role": "proxy"}],
    ids=["rubric written", "rubric given", "proxy"],
)
def test_the_way_leads_from_the_last_hint_to_the_token_before_the_verdict(processor, options):
    examples = [example_of(seed, **options) for seed in range(6)]
    batch = HintCollator(processor)(examples)
    tokenizer = processor.tokenizer
    for row, example in enumerate(examples):
        ways = [place for place in batch["way_places"].tolist() if place[0] == row]
        columns = [column for _, column in ways]
        assert columns == list(range(columns[0], columns[-1] + 1))
        verdict = batch["input_ids"][row, columns[-1] + 1]
        assert tokenizer.decode(verdict) == str(example.label)
        hints = [column for at, column in batch["hint_places"].tolist() if at == row]
        assert len(hints) == len(example.hints)
        assert columns[0] == hints[-1]


def test_a_hint_is_asked_at_its_last_token(processor):
    examples = [example_of(seed) for seed in range(6)]
    batch = HintCollator(processor)(examples)
    for row, example in enumerate(examples):
        (asked,) = asked_at(batch, "hint", row, processor.tokenizer)
        assert example.hints[0].endswith(asked.strip())


def test_what_is_true_at_each_is_whether_the_first_response_is_better(processor):
    examples = [example_of(seed) for seed in range(12)]
    batch = HintCollator(processor)(examples)
    rows = batch["hint_places"][:, 0].tolist()
    assert batch["hint_firsts"].tolist() == [float(examples[row].label == 1) for row in rows]
    assert len(batch["way_firsts"]) == len(batch["way_places"])


def test_an_evaluation_is_not_asked_to_its_end(processor):
    batch = HintCollator(processor)([example_of(3, at_once=False)])
    assert 0 < len(batch["way_places"]) <= 12


def test_examples_without_hints_are_asked_nothing(processor):
    example = example_of(1, role="proxy")
    unhinted = [type(example)(example.system, example.user, example.answer)]
    batch = HintCollator(processor)(unhinted)
    assert batch["hint_places"].shape == batch["way_places"].shape == (0, 2)


def test_a_verdict_at_once_weighs_more(processor):
    (plain, hinted) = (example_of(2, at_once=False), example_of(2))
    collate = HintCollator(processor, label_words=("1", "2"), label_weight=5.0)
    batch = collate([plain, hinted])
    row, column = batch["way_places"][-1].tolist()
    assert row == 1
    assert batch["loss_weights"][1, column + 1] == 15.0
    assert batch["loss_weights"][0].max() == 5.0


def test_an_example_left_out_is_refused(processor):
    collate = HintCollator(processor, max_length=1)
    with pytest.raises(ValueError, match="max_length"):
        collate([example_of(1), example_of(2)])


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
    examples = lazy_examples(8, example_of)
    return HintedSftTrainer(network, arguments, HintCollator(processor), examples, hint_weight=0.5)


def test_the_probes_add_to_the_loss_and_learn_from_it(trainer):
    batch = trainer.data_collator([trainer.train_dataset[n] for n in range(4)])
    whole = trainer.compute_loss(trainer.model, dict(batch))
    trainer.hint_weight = 0.0
    answers = trainer.compute_loss(trainer.model, dict(batch))
    assert whole > answers
    whole.backward()
    assert torch.count_nonzero(trainer.model.hint_probe[1].weight.grad)
    assert torch.count_nonzero(trainer.model.way_probe[1].weight.grad)


def test_the_probes_are_thrown_away(trainer):
    trainer.discard_probes()
    assert not [name for name, _ in trainer.model.named_parameters() if "probe" in name]
