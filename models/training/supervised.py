"""Supervised fine-tuning with weighted tokens, on TRL's trainer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from models.training.collate import ExampleCollator
from models.training.examples import Example
from models.training.optimizers import MuonWithAdamW
from models.training.recipe import Muon
from models.training.resuming import LoadsWeightsByTheirNames


def lazy_examples(number: int, make: Callable[[int], Example]) -> Dataset:
    """A data set of `number` examples, each made when it is read.

    Args:
        number: how many there are.
        make: gives the example of an index; it must depend on nothing else, so that a resumed
            run reads what an unkilled one would have.
    """

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Example]]:
        return {"example": [make(index) for index in batch["index"]]}

    return Dataset.from_dict({"index": range(number)}).with_transform(rows)


class LikeLengths(Sampler[int]):
    """Batches of examples of like length, from each group of neighbours in turn.

    Drawn examples are random already; that groups keep their order lets a task grow harder.
    Unlike transformers' own grouping, which goes from long to short again and again, the batches
    of a group come in random order: long and short examples are different tasks here.

    Args:
        lengths: one an example.
        batch: examples in a batch.
        seed: the order depends on it and on the epoch alone.
        group: batches that are sorted together.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, group: int = 24) -> None:
        self.lengths, self.batch, self.seed, self.group = lengths, batch, seed, group
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Gives each epoch an order of its own."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        order = range(len(self.lengths))
        size = self.batch * self.group
        for start in range(0, len(order), size):
            together = sorted(order[start : start + size], key=self.lengths.__getitem__)
            batches = [together[at : at + self.batch] for at in range(0, len(together), self.batch)]
            short = batches.pop() if len(batches[-1]) < self.batch else []  # has to stay last
            rng.shuffle(batches)
            for batch in (*batches, short):
                yield from batch


class WeightedSftTrainer(LoadsWeightsByTheirNames, SFTTrainer):
    """`trl.SFTTrainer` on batches of `ExampleCollator`; each token counts by its weight.

    Args:
        model: the network to train.
        arguments: TRL's own.
        collate: makes the batches.
        examples: rows with an ``example`` each.
        lengths: how long each example is, in any unit: batches are then drawn from examples
            of like length, since padding costs as much as text. None draws at random.
        muon: how Muon is used; None leaves the optimizer to `arguments`.
    """

    def __init__(
        self,
        model: Any,
        arguments: SFTConfig,
        collate: ExampleCollator,
        examples: Dataset,
        lengths: list[int] | None = None,
        muon: Muon | None = None,
        **others: Any,
    ) -> None:
        self._lengths, self._muon = lengths, muon
        arguments.remove_unused_columns = False
        arguments.dataset_kwargs = {"skip_prepare_dataset": True}
        super().__init__(
            model,
            arguments,
            data_collator=lambda rows: collate([row["example"] for row in rows]),
            train_dataset=examples,
            processing_class=collate.processor,
            **others,
        )
        # The loss is a mean over its own batch; accumulated ones are divided by their number.
        self.loss_is_scaled_for_ga = False

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Muon where it is asked for, else what the arguments say."""
        known: Any = self.optimizer
        if self._muon is None or known is not None:
            return super().create_optimizer(model)
        arguments, network = self.args, self.model if model is None else model
        assert network is not None  # the trainer was given one
        self.optimizer = MuonWithAdamW(
            network,
            arguments.learning_rate,
            self._muon.adamw_learning_rate,
            betas=(arguments.adam_beta1, arguments.adam_beta2),
            weight_decay=arguments.weight_decay,
        )
        return self.optimizer

    def discard_probes(self) -> None:
        """Takes away what was trained beside the network; here there is nothing."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self._lengths is None:
            return super()._get_train_sampler(train_dataset)
        return LikeLengths(self._lengths, self._train_batch_size, self.args.seed)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The weighted mean of the answers' negative log-likelihoods, a scalar."""
        inputs = dict(inputs)
        weights_BT = inputs.pop("loss_weights")
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        weights_BT = weights_BT[:, 1:]  # log_probs are those of the next token
        loss = -(outputs.log_probs * weights_BT).sum() / weights_BT.sum().clamp(min=1e-9)
        learned = outputs.label_mask.sum().clamp(min=1)
        metrics = self._metrics["train" if model.training else "eval"]
        metrics["token_accuracy"].append(float(outputs.is_top1.sum() / learned))
        heavy_BT = weights_BT > 1
        if heavy_BT.any():
            metrics["label_accuracy"].append(float(outputs.is_top1[heavy_BT].float().mean()))
        return (loss, outputs) if return_outputs else loss
