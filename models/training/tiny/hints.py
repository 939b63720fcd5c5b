"""Where a verdict can be known, asked of the layers in between.

A verdict without an evaluation is found in two steps: which response says what is right, and
fetching that to where the verdict is written. A small network that is told nothing but the verdict
finds neither (100,000s of examples at chance). So both steps are asked for: a probe reads the
verdict from a lower layer where it can first be known, and another one from a higher layer at
every token from there to the verdict: the way is learned from its near end on. The probes are
thrown away.

Source: deep supervision (Lee et al., 2015), here at chosen tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import override

from models.training.collate import ExampleCollator
from models.training.examples import Example
from models.training.supervised import WeightedSftTrainer

_LOWER, _HIGHER = 2, 4
"""Layers whose outputs are asked, of 6."""
_BEYOND = 12
"""Tokens after a hint that are asked when an evaluation is written."""
_VERDICT_WEIGHT = 3.0
"""A verdict without an evaluation counts as this many of those after one."""


class HintCollator(ExampleCollator):
    """Adds where to ask and what is true there.

    Beside the tensors of `ExampleCollator`: ``hint_places`` and ``way_places``, (K, 2) rows and
    columns of the batch; ``hint_firsts`` and ``way_firsts``, (K,), 1 where response 1 is better.
    """

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One batch."""
        batch = super().__call__(examples)
        weights_BT = batch["loss_weights"]
        if len(weights_BT) != len(examples):
            raise ValueError("hints are for examples of which none is left out: set no max_length")
        hints: list[tuple[int, int]] = []
        way: list[tuple[int, int]] = []
        for row, example in enumerate(examples):
            if not example.hints:
                continue
            length = int(batch["attention_mask"][row].sum())
            found = self._places(example, length)
            verdict = int(weights_BT[row].nonzero()[-1]) - self._after_verdict
            hints += [(row, place) for place in found]
            at_once = example.evaluation_is_empty
            if at_once:
                weights_BT[row, verdict] *= _VERDICT_WEIGHT
            end = verdict if at_once else min(verdict, found[-1] + _BEYOND)
            way += [(row, place) for place in range(found[-1], end)]
        for name, places in (("hint", hints), ("way", way)):
            firsts = [float(examples[row].label == 1) for row, _ in places]
            batch[f"{name}_places"] = torch.tensor(places, dtype=torch.long).view(-1, 2)
            batch[f"{name}_firsts"] = torch.tensor(firsts)
        return batch

    @property
    def _after_verdict(self) -> int:
        return len(self._encode("</answer>")) + len(self._end)

    def _places(self, example: Example, length: int) -> list[int]:
        """The last token of each hint, in reading order."""
        pieces = [*self._texts([example]), *example.answer]
        sizes = [len(self._encode(piece)) for piece in example.answer]
        # The prompt takes what is left: its pictures are many tokens and one piece of text.
        sizes = [length - sum(sizes) - len(self._end), *sizes]
        found: list[int] = []
        for hint in example.hints:
            at = next((n for n, piece in enumerate(pieces) if hint in piece), None)
            if at is None:
                raise ValueError(f"the hint {hint!r} is nowhere: hints are for the toy prompts")
            after = pieces[at][pieces[at].rindex(hint) + len(hint) :]
            left = len(self.processor.tokenizer.encode(after)) if after else 0
            found.append(sum(sizes[: at + 1]) - left - 1)
        return sorted(found)


class HintedSftTrainer(WeightedSftTrainer):
    """Adds the probes' losses to that of the answers."""

    def __init__(self, model: Any, *arguments: Any, hint_weight: float, **others: Any) -> None:
        self.hint_weight = hint_weight
        self._read: dict[str, torch.Tensor] = {}
        width = model.config.text_config.hidden_size
        layers = model.model.language_model.layers
        for name, layer in (("hint", _LOWER), ("way", _HIGHER)):
            probe = torch.nn.Sequential(
                torch.nn.RMSNorm(width, elementwise_affine=False), torch.nn.Linear(width, 1)
            )
            model.add_module(f"{name}_probe", probe)
            layers[layer].register_forward_hook(self._keep(name))
        super().__init__(model, *arguments, **others)

    def _keep(self, name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            self._read[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The answers' loss plus the probes', a scalar."""
        inputs = dict(inputs)
        asked = {
            name: (inputs.pop(f"{name}_places"), inputs.pop(f"{name}_firsts"))
            for name in ("hint", "way")
        }
        loss = super().compute_loss(model, inputs)
        network = self.accelerator.unwrap_model(model)
        for name, (places_K2, firsts_K) in asked.items():
            if not len(places_K2):
                continue
            read_KD = self._read[name][places_K2[:, 0], places_K2[:, 1]]
            said_K = network.get_submodule(f"{name}_probe")(read_KD)[:, 0]
            loss = loss + self.hint_weight * (
                torch.nn.functional.binary_cross_entropy_with_logits(said_K, firsts_K)
            )
            right = ((said_K > 0) == (firsts_K > 0)).float().mean()
            self._metrics["train"][f"{name}_accuracy"].append(float(right))
        return loss

    @override
    def discard_probes(self) -> None:
        for name in ("hint", "way"):
            delattr(self.accelerator.unwrap_model(self.model), f"{name}_probe")
