from __future__ import annotations

import copy

import pytest
import torch

from models.training.optimizers import MuonWithAdamW, split_parameters


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Embedding(11, 8), torch.nn.Linear(8, 12), torch.nn.LayerNorm(12)
    )


def optimizer_of(model, rate=0.01):
    return MuonWithAdamW(model, rate, 2 * rate, betas=(0.9, 0.98), weight_decay=0.0)


def take_steps(model, optimizer, number):
    ids = torch.arange(11)
    for _ in range(number):
        loss = (model(ids) - ids[:, None] / 11).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def test_muon_has_the_hidden_matrices_and_adamw_the_rest():
    model = network()
    hidden, others = split_parameters(model)
    assert [p.shape for p in hidden] == [(12, 8)]
    assert [p.shape for p in others] == [(11, 8), (12,), (12,), (12,)]


def test_what_is_frozen_is_in_neither():
    model = network()
    model[1].weight.requires_grad_(False)
    hidden, others = split_parameters(model)
    assert not hidden
    assert len(others) == 4


def test_the_loss_falls():
    model = network()
    optimizer = optimizer_of(model)
    before = take_steps(model, optimizer, 1)
    assert take_steps(model, optimizer, 60) < before / 2


def test_a_scheduler_sets_the_rates_of_both():
    optimizer = optimizer_of(network())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.005, 0.01])


def test_a_run_that_goes_on_from_its_state_ends_like_one_that_was_never_stopped():
    whole, stopped = network(), network()
    unkilled, first = optimizer_of(whole), optimizer_of(stopped)
    take_steps(whole, unkilled, 6)
    take_steps(stopped, first, 3)
    saved = copy.deepcopy(first.state_dict())
    second = optimizer_of(stopped, rate=1.0)
    second.load_state_dict(saved)
    assert [group["lr"] for group in second.param_groups] == [0.01, 0.02]
    take_steps(stopped, second, 3)
    for one, other in zip(whole.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(one, other)
