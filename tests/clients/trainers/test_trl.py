"""The reward functions as TRL calls them, and in a real `GRPOTrainer`."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from proxy_grm_client import DemoRelease
from proxy_grm_client.trainers.trl import AsyncRewardFunction, PairwiseJudge, RewardFunction

from models import torchvision_guard
from models.release import SHIPPED_DIR

PICTURE = Image.new("RGB", (64, 48), "teal")
TURN = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


class Trainer:
    """Calls a reward function as the trainer does, and keeps what it logs."""

    def __init__(self) -> None:
        self.extra: dict[str, list[Any]] = {}
        self.metrics: dict[str, float] = {}

    def asks(self, reward: Any, completions: list[Any], **columns: Any) -> Any:
        return reward(
            prompts=columns.pop("prompts", [[TURN]] * len(completions)),
            completions=completions,
            completion_ids=[[1]] * len(completions),
            trainer_state=None,
            log_extra=self.extra.__setitem__,
            log_metric=self.metrics.__setitem__,
            **columns,
        )


def test_a_group_is_ranked_in_one_call_and_its_parts_are_logged(opened, judge):
    trainer = Trainer()
    reward = opened(RewardFunction)
    said = [says("1"), says("mumble"), says("3")]
    found = trainer.asks(reward, said, images=[[PICTURE], [PICTURE.copy()], [PICTURE]])
    assert found[1] is None
    assert found[0] < 0 < found[2]
    [(path, body)] = judge.bodies
    assert (path, body["question"], len(body["images"])) == ("/rank", "How many?", 1)
    assert trainer.extra["proxy_grm_rubric"] == ["1. Truth (100%)"] * 3
    assert trainer.extra["proxy_grm_abstained"] == [None, "unreadable", None]
    assert trainer.metrics == pytest.approx(
        {"proxy_grm/abstained": 1 / 3, "proxy_grm/abstained_unreadable": 1 / 3}
    )
    assert reward.__name__ == "proxy_grm"


def test_columns_stand_in_for_what_the_prompt_does_not_say(opened, judge):
    trainer = Trainer()
    reward = opened(RewardFunction, mode="reference", name="better", depth="verdict")
    found = trainer.asks(
        reward,
        ["3", "1"],
        prompts=["Think. How many?"] * 2,
        question=["How many?"] * 2,
        reference=["2", "2"],
        image=[PICTURE, PICTURE],
    )
    assert found == pytest.approx([0.8, -0.8])
    body = judge.bodies[0][1]
    assert (body["question"], len(body["images"]), body["depth"]) == ("How many?", 1, "verdict")
    assert trainer.metrics == {"better/abstained": 0.0}


def test_it_is_awaited_too(opened):
    found = asyncio.run(Trainer().asks(opened(AsyncRewardFunction), [says("1"), says("2")]))
    assert found == pytest.approx([-0.8, 0.8])


def test_a_demonstration_is_refused(opened, judge):
    judge.purpose = "demo"
    with pytest.raises(DemoRelease):
        Trainer().asks(opened(RewardFunction), ["1", "2"])
    assert None not in Trainer().asks(opened(RewardFunction, allow_demo=True), ["1", "2"])


class TestPairwiseJudge:
    def test_it_says_which_completion_is_better_whatever_the_order(self, opened, judge):
        pairs = [[str(number), "5"] for number in (1, 9)] * 20
        for shuffle in (True, False):
            found = opened(PairwiseJudge).judge(["How many?"] * 40, pairs, shuffle_order=shuffle)
            assert found == [1, 0] * 20
        firsts = [body["responses"][0] for _, body in judge.bodies]
        assert 10 < firsts[:40].count("5") < 30
        assert "5" not in firsts[40:]

    def test_the_same_seed_shuffles_the_same_way(self, opened, judge):
        for _ in range(2):
            opened(PairwiseJudge, seed=3).judge(["How many?"] * 20, [["1", "5"]] * 20)
        sent = [body["responses"] for _, body in judge.bodies]
        assert sorted(sent[:20]) == sorted(sent[20:])

    def test_an_abstention_is_minus_one(self, opened):
        pairs = [["1", "mumble"], ["1", "2"], ["", "2"]]
        assert opened(PairwiseJudge).judge(["How many?"] * 3, pairs) == [-1, 1, -1]

    def test_prompts_and_completions_may_be_conversations_with_pictures(self, opened, judge):
        pairs = [[says("1"), says("2")]]
        assert opened(PairwiseJudge).judge([[TURN]], pairs, images=[[PICTURE]]) == [1]
        [(_, body)] = judge.bodies
        assert (body["question"], len(body["images"])) == ("How many?", 1)


@pytest.mark.parametrize("kind", [RewardFunction, AsyncRewardFunction])
def test_a_real_trainer_is_rewarded_by_a_running_service(
    kind: type[RewardFunction | AsyncRewardFunction], service_url: str, tmp_path: Path
):
    torchvision_guard.install()
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = [
        {"prompt": [TURN | {"content": [TURN["content"][0], {"type": "text", "text": asked}]}]}
        | {"images": [PICTURE.resize((112, 112))]}
        for asked in ("How many circles?", "unreadable")
    ]
    reward = kind(service_url, allow_demo=True, depth="verdict")
    trainer = GRPOTrainer(
        model=str(SHIPPED_DIR / "tiny" / "judge"),
        reward_funcs=[reward, lengths],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            max_steps=4,
            num_generations=4,
            per_device_train_batch_size=8,
            max_completion_length=12,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_completions=False,
        ),
        train_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    reward.close()
    logged = [entry for entry in trainer.state.log_history if "rewards/proxy_grm/mean" in entry]
    assert len(logged) == 4
    for entry in logged:
        assert entry["rewards/proxy_grm/mean"] == pytest.approx(0, abs=1e-5)  # of the ranked alone
        assert entry["proxy_grm/abstained"] >= 0.5
        assert entry["proxy_grm/abstained_unreadable"] == 0.5
        assert entry["rewards/lengths/mean"] > 0
    last = zip(
        list(trainer._logs["prompt"])[-8:],
        list(trainer._logs["rewards"]["proxy_grm"])[-8:],
        strict=True,
    )
    unread = [math.isnan(value) for prompt, value in last if "unreadable" in str(prompt)]
    assert unread == [True] * 4


def lengths(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]
