"""OpenRLHF's own loader of reward files; skipped where it is not installed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

agent = pytest.importorskip("openrlhf.utils.agent")

FILE = """
from proxy_grm_client.trainers.openrlhf import RewardFunction
reward_func = RewardFunction({url!r}, allow_demo=True, depth="verdict")
"""
PROMPT = "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(("question", "failed"), [("How many?", 0.0), ("unreadable", 1.0)])
def test_its_executor_is_rewarded_by_the_file(
    question: str, failed: float, service_url: str, tmp_path: Path
):
    file = tmp_path / "reward.py"
    file.write_text(FILE.format(url=service_url))
    executor = agent.SingleTurnAgentExecutor(str(file))
    label = json.dumps({"question": question, "reference": "There are three."})
    asked = executor._fetch_rewards_via_func([PROMPT + "One.<|im_end|>"], [PROMPT], [label])
    [found] = asyncio.run(asked)
    assert found["extra_logs"]["failed"].tolist() == [failed]
    assert -1 <= found["rewards"].item() <= 1
    executor.reward_func.close()
