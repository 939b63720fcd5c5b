from __future__ import annotations

import pytest

from models.training.processes import spread_by_accelerate


@pytest.mark.parametrize(
    ("variables", "spread"),
    [
        ({}, False),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, True),
        ({"ACCELERATE_USE_FSDP": "True"}, True),
        ({"ACCELERATE_USE_DEEPSPEED": "false"}, False),
    ],
)
def test_accelerates_launcher_says_whether_it_spreads_a_run(variables, spread, monkeypatch):
    for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert spread_by_accelerate() is spread
