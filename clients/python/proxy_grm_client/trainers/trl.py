"""Rewards for TRL's `GRPOTrainer` and others with its reward functions; a pairwise judge.

Rollouts of a prompt are ranked with each other, so a process should see whole groups:
`per_device_train_batch_size` a multiple of `num_generations`.

>>> from proxy_grm_client.trainers.trl import RewardFunction
>>> reward = RewardFunction(allow_demo=True)   # GRPOTrainer(reward_funcs=reward, …)
>>> rewards = reward(
...     prompts=["How many cats are there?"] * 3,
...     completions=["One.", "Two.", " "],
... )
>>> round(abs(rewards[0] + rewards[1]), 6), rewards[2]
(0.0, None)
>>> reward.close()
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from proxy_grm_client.calls import RewardOptions
from proxy_grm_client.images import ImageLike
from proxy_grm_client.trainers.rewards import Mode, Reward, Rewards
from proxy_grm_client.trainers.rollouts import (
    Rollout,
    as_images,
    images_of,
    question_of,
    response_of,
)

Prompt = str | Sequence[Mapping[str, Any]]
LogExtra = Callable[[str, list[Any]], None]
LogMetric = Callable[[str, float], None]


class _RewardFunction:
    """What both kinds share."""

    def __init__(
        self,
        url: str | None = None,
        *,
        mode: Mode = "group",
        allow_demo: bool = False,
        name: str = "proxy_grm",
        timeout_s: float = 300.0,
        client: Mapping[str, Any] | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        self.__name__ = name
        self._rewards = Rewards(url, mode, allow_demo, timeout_s, {**options}, {**(client or {})})

    def close(self) -> None:
        """Gives the connections back."""
        self._rewards.close()

    def _finish(
        self, rewards: Sequence[Reward], log_extra: LogExtra | None, log_metric: LogMetric | None
    ) -> list[float | None]:
        """TRL's form; abstentions, by their reasons, are logged."""
        if log_extra is not None:
            log_extra(f"{self.__name__}_rubric", [reward.rubric for reward in rewards])
            log_extra(f"{self.__name__}_abstained", [reward.reason for reward in rewards])
        if log_metric is not None and rewards:
            reasons = Counter(reward.reason for reward in rewards if reward.reason is not None)
            log_metric(f"{self.__name__}/abstained", reasons.total() / len(rewards))
            for reason, number in reasons.items():
                log_metric(f"{self.__name__}/abstained_{reason}", number / len(rewards))
        return [reward.value for reward in rewards]


class RewardFunction(_RewardFunction):
    """A reward function; None is an abstention.

    Args:
        url: where the service listens; absent, ``PROXY_GRM_URL`` or ``http://127.0.0.1:8000``.
        mode: ``group`` ranks a prompt's rollouts with each other in one call; ``reference``
            compares each with the data set's column `reference`.
        allow_demo: be rewarded even by a release that is a demonstration.
        name: under which TRL logs the reward.
        timeout_s: of one ranking or comparison.
        client: further arguments of `AsyncClient`.
        **options: of every call; see `proxy_grm_client.calls.RewardOptions`.

    Pictures come from the columns `images` or `image`, or out of the prompt. A column `question`
    stands in for the prompt's text.
    """

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Prompt],
        log_extra: LogExtra | None = None,
        log_metric: LogMetric | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward a completion, in -1..1.

        Raises:
            DemoRelease: a demonstration answered, and that is not allowed.
            ProxyGrmError: an error of the set-up; what a rollout cannot help is None instead.
        """
        rewards = self._rewards.of(rollouts_of(prompts, completions, columns))
        return self._finish(rewards, log_extra, log_metric)


class AsyncRewardFunction(_RewardFunction):
    """`RewardFunction`, awaited: TRL runs it beside other asynchronous ones."""

    async def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Prompt],
        log_extra: LogExtra | None = None,
        log_metric: LogMetric | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward a completion, in -1..1; see `RewardFunction`."""
        rewards = await self._rewards.of_async(rollouts_of(prompts, completions, columns))
        return self._finish(rewards, log_extra, log_metric)


class PairwiseJudge:
    """Which of two completions is better; the interface of TRL's former judges.

    Args:
        url: where the service listens; absent, ``PROXY_GRM_URL`` or ``http://127.0.0.1:8000``.
        allow_demo: judge even by a release that is a demonstration.
        seed: of the shuffled orders.
        timeout_s: of one comparison.
        client: further arguments of `AsyncClient`.
        **options: of every call; see `proxy_grm_client.calls.RewardOptions`.

    >>> from proxy_grm_client.trainers.trl import PairwiseJudge
    >>> judge = PairwiseJudge(allow_demo=True)
    >>> judge.judge(["How many cats?"], [["One.", "Two."]])[0] in (0, 1)
    True
    >>> judge.close()
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        allow_demo: bool = False,
        seed: int = 0,
        timeout_s: float = 300.0,
        client: Mapping[str, Any] | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        self._rewards = Rewards(
            url, "reference", allow_demo, timeout_s, {**options}, {**(client or {})}
        )
        self._random = random.Random(seed)

    def close(self) -> None:
        """Gives the connections back."""
        self._rewards.close()

    def judge(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[Prompt]],
        shuffle_order: bool = True,
        images: Sequence[Any] | None = None,
    ) -> list[int]:
        """The index of the better completion of each pair; -1 for an abstention.

        Args:
            prompts: what the completions answer.
            completions: pairs.
            shuffle_order: read a random half of the pairs the other way round.
            images: the pictures of each prompt, where they do not stand in it.

        Raises:
            DemoRelease: a demonstration answered, and that is not allowed.
            ProxyGrmError: an error of the set-up.
        """
        swapped = [shuffle_order and self._random.random() < 0.5 for _ in completions]
        pairs: list[Rollout] = []
        for place, (prompt, (one, other)) in enumerate(zip(prompts, completions, strict=True)):
            first, second = (other, one) if swapped[place] else (one, other)
            seen = as_images(images[place]) if images is not None else images_of(prompt)
            pairs.append(
                Rollout(question_of(prompt), response_of(first), seen, response_of(second))
            )
        return [
            -1 if preferred is None else (preferred - 1) ^ turned
            for preferred, turned in zip(self._rewards.preferred(pairs), swapped, strict=True)
        ]


def rollouts_of(
    prompts: Sequence[Prompt], completions: Sequence[Prompt], columns: Mapping[str, Any]
) -> list[Rollout]:
    """TRL's lists as rollouts."""
    return [
        Rollout(
            question=_column(columns, "question", place) or question_of(prompt),
            response=response_of(completion),
            images=_images(columns, prompt, place),
            reference=_column(columns, "reference", place),
        )
        for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]


def _images(columns: Mapping[str, Any], prompt: Prompt, place: int) -> Sequence[ImageLike]:
    found = as_images(_column(columns, "images", place)) or as_images(
        _column(columns, "image", place)
    )
    return found or images_of(prompt)


def _column(columns: Mapping[str, Any], name: str, place: int) -> Any:
    values = columns.get(name)
    return None if values is None else values[place]
