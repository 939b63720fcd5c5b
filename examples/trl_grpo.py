"""GRPO with TRL, rewarded by a running service: each prompt's rollouts are ranked in one call.

With `make serve` in another terminal (and `make train` once, for TRL):

    .venv/bin/python examples/trl_grpo.py --steps 20

trains the 1.4-million-parameter model of the demonstration release for some minutes on a CPU.
With a judge of your own and your data set (columns `prompt` and `images`), replace `model`,
`train_dataset` and `allow_demo`.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

from proxy_grm_client.trainers.trl import AsyncRewardFunction

from models import torchvision_guard
from models.release import SHIPPED_DIR
from models.toyworld import make_case
from models.toyworld.scene import draw


def brevity(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A second reward, to show that each is logged by its own name."""
    return [-len(ids) / 100 for ids in completion_ids]


def rows(number: int) -> list[dict[str, Any]]:
    """Questions about drawn scenes, as TRL's conversational prompts with pictures."""
    cases = [make_case(random.Random(seed)) for seed in range(number)]
    return [
        {
            "prompt": [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": case.question}],
                }
            ],
            "images": [draw(case.scene)],
        }
        for case in cases
    ]


def main() -> None:
    """Trains, and prints each step's rewards."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", help="where the service listens")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", default="runs/trl_grpo")
    arguments = parser.parse_args()
    torchvision_guard.install()  # before transformers is imported
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    reward = AsyncRewardFunction(arguments.url, allow_demo=True, depth="verdict")
    rewards: list[Any] = [reward, brevity]
    trainer = GRPOTrainer(
        model=str(SHIPPED_DIR / "tiny" / "judge"),
        reward_funcs=rewards,
        args=GRPOConfig(
            output_dir=arguments.output,
            use_cpu=True,
            bf16=False,
            max_steps=arguments.steps,
            num_generations=8,
            per_device_train_batch_size=16,
            max_completion_length=24,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=Dataset.from_list(rows(64)),
    )
    trainer.train()
    for entry in trainer.state.log_history:
        said = {
            name: value for name, value in entry.items() if "rewards/" in name or "grm/" in name
        }
        print(entry.get("step"), said)
    reward.close()


if __name__ == "__main__":
    main()
