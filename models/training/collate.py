"""Batches of examples as model inputs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import torch

from models.comparison import JudgeImage
from models.training.examples import Example

_log = logging.getLogger(__name__)

IGNORED = -100
"""A label that carries no loss."""


def chat_messages(example: Example) -> list[dict[str, Any]]:
    """The prompt as the chat messages that processors and TRL take, pictures included."""
    parts = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part.pixels}
        for part in example.user
    ]
    return [
        {"role": "system", "content": [{"type": "text", "text": example.system}]},
        {"role": "user", "content": parts},
    ]


class ExampleCollator:
    """Tokenises, pads on the right, and weighs the tokens of the answers.

    Called with B examples it returns ``input_ids``, ``attention_mask``, ``labels`` and
    ``loss_weights`` of shape (B, T) beside the processor's own tensors for the pictures
    (``pixel_values``: (patches, patch values), ``image_grid_thw``: (pictures, 3)). Prompts carry
    no loss, nor do the given pieces of an answer.

    Args:
        processor: a Qwen2.5-VL processor; its chat template is the one that serving uses.
        label_words: words that carry a label.
        label_weight: how many ordinary tokens one of them counts for.
        max_length: a longer example is left out of its batch, never cut: its verdict stands at
            its end. Of a batch of nothing but longer ones the shortest stays.
    """

    def __init__(
        self,
        processor: Any,
        label_words: Collection[str] = (),
        label_weight: float = 1.0,
        max_length: int | None = None,
    ) -> None:
        self.processor, self.max_length = processor, max_length
        tokenizer = processor.tokenizer
        self._end: list[int] = tokenizer.encode("<|im_end|>")
        self._pad: int = tokenizer.pad_token_id
        self._pieces: dict[str, list[int]] = {}
        self._weights: list[float] = [1.0] * len(tokenizer)
        for token, token_id in tokenizer.get_vocab().items():
            if token.strip("ĠĊ") in label_words:
                self._weights[token_id] = label_weight

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One batch; see the class."""
        inputs, rows = self._inputs_and_rows(examples)
        short = self._short_enough([len(ids) for ids, _, _ in rows])
        if len(short) < len(examples):
            inputs, rows = self._inputs_and_rows([examples[place] for place in short])
        inputs.pop("attention_mask", None)
        types = inputs.pop("mm_token_type_ids", None)
        ids_BT, labels_BT, weights_BT = (
            torch.nn.utils.rnn.pad_sequence(list(column), batch_first=True, padding_value=padding)
            for column, padding in zip(
                zip(*rows, strict=True), (self._pad, IGNORED, 0.0), strict=True
            )
        )
        lengths_B = torch.tensor([len(ids) for ids, _, _ in rows])
        mask_BT = torch.arange(ids_BT.shape[1])[None] < lengths_B[:, None]
        inputs |= {
            "input_ids": ids_BT,
            "attention_mask": mask_BT.long(),
            "labels": labels_BT,
            "loss_weights": weights_BT,
        }
        if types is not None:
            inputs["mm_token_type_ids"] = _padded_like(types, ids_BT)
        return inputs

    def _inputs_and_rows(
        self, examples: Sequence[Example]
    ) -> tuple[dict[str, Any], list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
        inputs = self._prompts(examples)
        prompts = inputs.pop("input_ids")
        return inputs, [
            self._row(prompt, example.answer)
            for prompt, example in zip(prompts, examples, strict=True)
        ]

    def _short_enough(self, lengths: Sequence[int]) -> list[int]:
        """The places of the examples that stay."""
        if self.max_length is None:
            return list(range(len(lengths)))
        short = [place for place, length in enumerate(lengths) if length <= self.max_length]
        short = short or [lengths.index(min(lengths))]
        for place in set(range(len(lengths))) - set(short):
            _log.warning(
                "left out an example of %d tokens: max_length is %d",
                lengths[place],
                self.max_length,
            )
        return short

    def _texts(self, examples: Sequence[Example]) -> list[str]:
        return self.processor.apply_chat_template(
            [chat_messages(e) for e in examples], tokenize=False, add_generation_prompt=True
        )

    def _prompts(self, examples: Sequence[Example]) -> dict[str, Any]:
        texts = self._texts(examples)
        images = [
            [part.pixels for part in e.user if isinstance(part, JudgeImage)] for e in examples
        ]
        inputs = dict(self.processor(text=texts, images=images if any(images) else None))
        for name in ("pixel_values", "image_grid_thw"):
            if name in inputs:
                inputs[name] = torch.as_tensor(inputs[name])
        return inputs

    def _row(
        self, prompt: list[int], answer: tuple[str, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids, labels = list(prompt), [IGNORED] * len(prompt)
        for place, piece in enumerate(answer):
            piece_ids = self._encode(piece)
            ids += piece_ids
            labels += piece_ids if place % 2 else [IGNORED] * len(piece_ids)
        ids, labels = ids + self._end, labels + self._end
        weights = [0.0 if label == IGNORED else self._weights[label] for label in labels]
        return torch.tensor(ids), torch.tensor(labels), torch.tensor(weights)

    def _encode(self, text: str) -> list[int]:
        if len(self._pieces) > 100_000:
            self._pieces.clear()
        if text not in self._pieces:
            self._pieces[text] = self.processor.tokenizer.encode(text) if text else []
        return self._pieces[text]


def _padded_like(rows: Sequence[Sequence[int]], like_BT: torch.Tensor) -> torch.Tensor:
    padded_BT = torch.zeros_like(like_BT)
    for n, row in enumerate(rows):
        padded_BT[n, : len(row)] = torch.as_tensor(row)
    return padded_BT
