"""Trains the embedded judge from nothing on the toy world.

Two stages: captions of whole scenes, because judgements alone teach the format
and not the seeing; then judgements with captions mixed in, the loss on the
words that carry a label weighted up. Killed at any point, the job goes on from
its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from models.neutralise import Neutraliser
from models.prompts import Prompts, read_prompts
from models.toyworld import make_case
from models.toyworld.scene import COLOURS, SHAPES, SIDE
from models.training import tiny_model
from models.training.examples import Example, caption_example, chat_text, judgement_example

_LABEL_WORDS = {
    *COLOURS, *SHAPES, "right", "wrong", "yes", "no", "left", "above", "below",
    *(str(digit) for digit in range(10)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a run depends on; the same recipe gives the same weights."""

    seed: int = 0
    caption_steps: int = 1500
    judgement_steps: int = 4500
    captions_mixed_in: float = 0.3
    batch: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    label_weight: float = 5.0

    @property
    def steps(self) -> int:
        """Both stages together."""
        return self.caption_steps + self.judgement_steps

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a twentieth."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


class Batches(IterableDataset[dict[str, Any]]):
    """Model inputs, one batch a step, each a function of the recipe's seed and the step alone.

    A batch has ``input_ids``, ``labels`` and ``weights`` of shape (batch, tokens),
    ``pixel_values`` of shape (patches, patch values) and ``image_grid_thw`` (images, 3).
    """

    def __init__(
        self, recipe: Recipe, prompts: Prompts, processor: Qwen2_5_VLProcessor, first_step: int
    ) -> None:
        self.recipe, self.prompts, self.processor = recipe, prompts, processor
        self.first_step = first_step
        tokenizer = processor.tokenizer
        self._neutralise = Neutraliser(tokenizer.all_special_tokens)
        self._answer_start = tokenizer.encode("<|im_start|>assistant\n")
        vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self._weight_T = torch.tensor(
            [recipe.label_weight if t.strip("ĠĊ") in _LABEL_WORDS else 1.0 for t in vocabulary]
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        torch.set_num_threads(1)
        for step in range(self.first_step, self.recipe.steps):
            rng = random.Random(f"{self.recipe.seed}/{step}")
            yield self.batch([self._example(step, rng) for _ in range(self.recipe.batch)])

    def batch(self, examples: list[Example]) -> dict[str, Any]:
        """Tokenised, padded on the right, with the loss weight of each token."""
        processor: Any = self.processor  # its keyword arguments are gathered from its parts
        inputs = processor(
            text=[chat_text(e) for e in examples],
            images=[image for e in examples for image in e.images],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        ids_BT = inputs["input_ids"]
        answered_BT = torch.stack([self._answer_mask(ids) for ids in ids_BT])
        answered_BT &= inputs["attention_mask"].bool()
        return {
            **inputs,
            "labels": ids_BT.masked_fill(~answered_BT, -100),
            "weights": self._weight_T[ids_BT] * answered_BT,
        }

    def _example(self, step: int, rng: random.Random) -> Example:
        case = make_case(rng)
        if step < self.recipe.caption_steps or rng.random() < self.recipe.captions_mixed_in:
            return caption_example(case)
        return judgement_example(case, self.prompts, self._neutralise, rng)

    def _answer_mask(self, ids_T: torch.Tensor) -> torch.Tensor:
        start = torch.tensor(self._answer_start)
        windows = ids_T.unfold(0, len(start), 1)
        first = int((windows == start).all(dim=1).nonzero()[-1]) + len(start)
        return torch.arange(len(ids_T)) >= first


def weighted_loss(
    logits_BTV: torch.Tensor, labels_BT: torch.Tensor, weights_BT: torch.Tensor
) -> torch.Tensor:
    """Cross entropy of the next token, each target counted by its weight."""
    targets_BT, target_weights_BT = labels_BT[:, 1:], weights_BT[:, 1:]
    loss_BT = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].transpose(1, 2), targets_BT, reduction="none", ignore_index=-100
    )
    return (loss_BT * target_weights_BT).sum() / target_weights_BT.sum()


def train(recipe: Recipe, run: Path, prompts: Prompts, checkpoint_every: int = 250) -> Path:
    """Trains, checkpointing into `run`, and returns the folder of the finished judge."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    tokenizer = tiny_model.build_tokenizer(prompts, recipe.seed)
    processor = tiny_model.build_processor(tokenizer, most_pixels=SIDE * SIDE)
    model = tiny_model.build_model(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98))
    step = _resume(run, recipe, model, optimizer)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {len(tokenizer)} tokens, from step {step}", flush=True)
    batches = DataLoader(
        Batches(recipe, prompts, processor, step), batch_size=None, num_workers=1, prefetch_factor=4
    )
    model.train()
    began = time.monotonic()
    for at, batch in zip(itertools.count(step), batches, strict=False):
        loss = _step(model, optimizer, recipe.learning_rate_at(at), batch)
        if (at + 1) % 25 == 0:
            pace = (time.monotonic() - began) / (at + 1 - step)
            left_min = pace * (recipe.steps - at - 1) / 60
            print(
                f"step {at + 1}/{recipe.steps} loss {loss:.4f} {pace:.2f} s/step"
                f" {left_min:.0f} min left",
                flush=True,
            )
        if (at + 1) % checkpoint_every == 0 or at + 1 == recipe.steps:
            _checkpoint(run, recipe, model, optimizer, at + 1)
    tiny_model.save(run / "judge", model, processor)
    return run / "judge"


def _step(
    model: Qwen2_5_VLForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    learning_rate: float,
    batch: dict[str, Any],
) -> float:
    labels_BT, weights_BT = batch.pop("labels"), batch.pop("weights")
    loss = weighted_loss(model(**batch, use_cache=False).logits, labels_BT, weights_BT)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _checkpoint(
    run: Path,
    recipe: Recipe,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    state = {
        "recipe": asdict(recipe),
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = run / "checkpoint.partial"
    torch.save(state, partial)
    partial.replace(run / "checkpoint.pt")  # atomic: a kill leaves the previous one


def _resume(
    run: Path, recipe: Recipe, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    path = run / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["recipe"] != asdict(recipe):
        sys.exit(f"{path} belongs to another recipe; choose another --run folder")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def main(argv: list[str] | None = None) -> None:
    """``python -m models.training.tiny``."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.tiny",
        description="Train the embedded judge from nothing on drawn scenes (CPU).",
        epilog="example: python -m models.training.tiny --run runs/tiny",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = Recipe()
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and result")
    parser.add_argument("--prompts", type=Path, default=Path("models/releases/tiny/prompts"))
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--caption-steps", type=int, default=defaults.caption_steps)
    parser.add_argument("--judgement-steps", type=int, default=defaults.judgement_steps)
    parser.add_argument("--batch", type=int, default=defaults.batch, help="examples a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    recipe = Recipe(
        seed=options.seed,
        caption_steps=options.caption_steps,
        judgement_steps=options.judgement_steps,
        batch=options.batch,
    )
    folder = train(recipe, options.run, read_prompts(options.prompts))
    print(f"finished: {folder}")


if __name__ == "__main__":
    main()
