"""ms-swift's own plug-in loader and reward loop; skipped where it is not installed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from models import torchvision_guard

torchvision_guard.install()
pytest.importorskip("swift.rewards")

PLUGIN = """
from proxy_grm_client.trainers.ms_swift import register
register("proxy_grm", url={url!r}, allow_demo=True, depth="verdict")
"""


def test_its_reward_loop_is_rewarded_by_the_plug_in(service_url: str, tmp_path: Path):
    from swift.rewards import AsyncORM, orms
    from swift.rl_core.data import GRPOSample
    from swift.rl_core.grpo_algorithm import compute_rewards_per_func
    from swift.utils.utils import import_external_file

    plugin = tmp_path / "proxy_grm_reward.py"
    plugin.write_text(PLUGIN.format(url=service_url))
    import_external_file(str(plugin))
    reward = orms["proxy_grm"](args=None)
    assert isinstance(reward, AsyncORM)
    said = (("How many?", "One."), ("How many?", "Two."), ("unreadable", "Three."))
    samples = [
        GRPOSample(
            messages=[
                {"role": "user", "content": "<image>" + question},
                {"role": "assistant", "content": response},
            ]
        )
        for question, response in said
    ]
    found = compute_rewards_per_func(samples, [reward], [None], torch.device("cpu"))
    first, second, third = found[:, 0].tolist()
    assert first + second == pytest.approx(0, abs=1e-6)
    assert math.isnan(third)
