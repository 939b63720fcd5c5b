"""Teaches the embedded network to see: what pretraining does for a real one.

Judgements alone teach their format and not the seeing: one verdict says little about a picture.
So scenes come first, each with a dozen facts about it, and every visual token is asked what its
cell shows: it should lie close to the embeddings of the very words, so that the language model
reads it as it reads words. The probe that asks is thrown away afterwards.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from datasets import Dataset
from transformers import Qwen2_5_VLForConditionalGeneration
from trl.trainer.sft_config import SFTConfig
from typing_extensions import override

from models.toyworld import make_case
from models.toyworld.looking import cell_words
from models.toyworld.scene import CELLS, COLOURS, COLUMNS, DIGITS, ROWS, SHAPES, SIZES, Scene
from models.training.collate import ExampleCollator
from models.training.examples import Example
from models.training.practice import look_example
from models.training.supervised import WeightedSftTrainer, lazy_examples

CELL_WORDS = (*COLOURS, *SHAPES, *SIZES, *DIGITS, "digit", *ROWS, *COLUMNS)
"""What a cell is asked for: each word is there or not."""


class CellProbe(torch.nn.Module):
    """Asks visual tokens which words say what their cells show.

    Args:
        word_ids: one token a word of `CELL_WORDS`.
    """

    word_ids: torch.Tensor

    def __init__(self, word_ids: list[int]) -> None:
        super().__init__()
        self.register_buffer("word_ids", torch.tensor(word_ids), persistent=False)
        self.bias = torch.nn.Parameter(torch.tensor(-2.0))

    def forward(self, seen_ND: torch.Tensor, embeddings_VD: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, words)."""
        words_WD = torch.nn.functional.normalize(embeddings_VD[self.word_ids], dim=-1)
        return seen_ND @ words_WD.T + self.bias


def look_examples(number: int, seed: int, facts: int) -> Dataset:
    """Scenes of fresh cases with facts about them."""

    def make(index: int) -> Example:
        rng = random.Random(f"{seed}/look/{index}")
        return look_example(make_case(rng).scene, rng, facts)

    return lazy_examples(number, make)


def shown_in_cells(scene: Scene) -> torch.Tensor:
    """Which words are true of which cell; (cells, words) of 0 and 1."""
    answers = torch.zeros(CELLS * CELLS, len(CELL_WORDS))
    for cell, words in enumerate(cell_words(scene)):
        for word in words:
            answers[cell, CELL_WORDS.index(word)] = 1
    return answers


class LookCollator(ExampleCollator):
    """Adds ``probe_answers`` of shape (B, cells, words)."""

    def __call__(self, examples: Any) -> dict[str, Any]:
        """One batch; each example has its scene."""
        answers = torch.stack([shown_in_cells(example.scene) for example in examples])
        return super().__call__(examples) | {"probe_answers": answers}


class LookTrainer(WeightedSftTrainer):
    """Adds the probe's loss to that of the facts.

    The probe is a part of the model while it trains, so that it is checkpointed with it.
    """

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        arguments: SFTConfig,
        collate: LookCollator,
        examples: Dataset,
        probe_weight: float,
        **others: Any,
    ) -> None:
        self.probe_weight = probe_weight
        self._seen: torch.Tensor | None = None
        tokenizer = collate.processor.tokenizer
        # A digit is a token without its space, any other word one with it.
        word_ids = [tokenizer.encode(w if w in DIGITS else f" {w}")[-1] for w in CELL_WORDS]
        model.probe = CellProbe(word_ids)
        model.model.visual.register_forward_hook(self._keep)
        super().__init__(model, arguments, collate, examples, **others)

    @override
    def discard_probes(self) -> None:
        delattr(self.accelerator.unwrap_model(self.model), "probe")

    def _keep(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._seen = output.pooler_output

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The facts' loss plus the probe's, a scalar."""
        inputs = dict(inputs)
        answers_BCQ = inputs.pop("probe_answers")
        loss = super().compute_loss(model, inputs)
        assert self._seen is not None
        network = self.accelerator.unwrap_model(model)
        found_NQ = network.probe(self._seen, network.get_input_embeddings().weight)
        found_BCQ = found_NQ.view_as(answers_BCQ)
        probe = torch.nn.functional.binary_cross_entropy_with_logits(found_BCQ, answers_BCQ)
        self._metrics["train"]["probe_loss"].append(float(probe.detach()))
        return loss + self.probe_weight * probe
