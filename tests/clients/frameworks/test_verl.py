"""verl's own loader and reward managers; skipped where it is not installed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from proxy_grm_client.trainers.verl import close

from models import torchvision_guard

torchvision_guard.install()
pytest.importorskip("verl")

SAID = {1: "There is one.", 2: "There are two."}


class Tokenizer:
    """Decodes one token."""

    def decode(self, ids: Any, **_: Any) -> str:
        return SAID[int(ids[0])]


@pytest.fixture(autouse=True)
def connections_given_back() -> Iterator[None]:
    yield
    close()


@pytest.mark.parametrize("name", ["compute_score", "compute_score_async"])
def test_its_reward_manager_is_rewarded(name: str, service_url: str):
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.reward import get_custom_reward_fn

    function = {
        "path": "pkg://proxy_grm_client.trainers.verl",
        "name": name,
        "reward_kwargs": {"url": service_url, "allow_demo": True, "depth": "verdict"},
    }
    config = OmegaConf.create({"reward": {"custom_reward_function": function}})
    asked = {"question": "How many?", "reference": "There are three."}

    async def rewarded() -> list[dict[str, Any]]:
        manager = NaiveRewardManager(config, Tokenizer(), get_custom_reward_fn(config))
        rows = [
            DataProto.from_dict(
                tensors={
                    "prompts": torch.ones(1, 1, dtype=torch.long),
                    "responses": torch.tensor([[token]]),
                    "attention_mask": torch.ones(1, 2, dtype=torch.long),
                },
                non_tensors={
                    "data_source": np.array(["cats"], dtype=object),
                    "reward_model": np.array([{"ground_truth": ""}], dtype=object),
                    "extra_info": np.array([asked | {"question": question}], dtype=object),
                },
            )
            for token, question in ((1, "How many?"), (2, "How many?"), (1, "unreadable"))
        ]
        return [await manager.run_single(row) for row in rows]

    found = asyncio.run(rewarded())
    assert [one["reward_extra_info"]["abstained"] for one in found] == [0.0, 0.0, 1.0]
    assert all(-1 <= one["reward_score"] <= 1 for one in found)
    assert found[0]["reward_score"] == found[0]["reward_extra_info"]["score"]


def test_its_batch_manager_is_rewarded(service_url: str):
    from verl import DataProto
    from verl.utils.import_utils import load_extern_object
    from verl.workers.reward_manager import BatchRewardManager

    function = load_extern_object("pkg://proxy_grm_client.trainers.verl", "compute_score_batch")
    manager = BatchRewardManager(
        Tokenizer(), 0, function, url=service_url, allow_demo=True, depth="verdict"
    )
    size = 3
    questions = ["How many?", "How many?", "unreadable"]
    batch = DataProto.from_dict(
        tensors={
            "prompts": torch.ones(size, 1, dtype=torch.long),
            "responses": torch.tensor([[1], [2], [1]]),
            "attention_mask": torch.ones(size, 2, dtype=torch.long),
        },
        non_tensors={
            "data_source": np.array(["cats"] * size, dtype=object),
            "reward_model": np.array([{"ground_truth": None}] * size, dtype=object),
            "extra_info": np.array([{"question": text} for text in questions], dtype=object),
        },
    )
    found = manager(batch, return_dict=True)
    assert found["reward_extra_info"]["abstained"] == [0.0, 0.0, 1.0]
    assert found["reward_tensor"].sum().item() == pytest.approx(0, abs=1e-6)
