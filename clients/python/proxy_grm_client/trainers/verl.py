"""Rewards for verl: `compute_score` for its reward managers, awaited, waiting or for a batch.

In verl's configuration (needs no file of your own):

    reward.custom_reward_function.path=pkg://proxy_grm_client.trainers.verl
    reward.custom_reward_function.name=compute_score_async
    +reward.custom_reward_function.reward_kwargs.url=http://judge:8000

`extra_info` of each row holds `question`, `images` (or `image`) and `reference`; without the last,
`ground_truth` is the reference.

>>> from proxy_grm_client.trainers.verl import close, compute_score
>>> asked = {"question": "How many cats are there?", "reference": "There is one."}
>>> result = compute_score("cats", "There are two.", None, asked, allow_demo=True)
>>> -1 <= result["score"] <= 1, result["abstained"]
(True, 0.0)
>>> close()
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from proxy_grm_client.calls import RewardOptions
from proxy_grm_client.trainers.rewards import Mode, Reward, Rewards
from proxy_grm_client.trainers.rollouts import Rollout, as_images

_OF_VERL = ("reward_router_address", "reward_model_tokenizer", "rollout_reward_scores")
"""Passed by verl's managers to whoever they call."""
_KEPT: dict[str, Rewards] = {}
_CHOOSING = threading.Lock()
_OF_CLIENT = ("api_key", "release", "may_change")


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    abstained_score: float = 0.0,
    **settings: Any,
) -> dict[str, float]:
    """How much better than its reference is a rollout?

    Args:
        data_source: not used.
        solution_str: the rollout's text.
        ground_truth: the reference, where `extra_info` has none.
        extra_info: `question`, `images` or `image`, `reference`.
        abstained_score: the number where there is no judgement; verl takes nothing else.
        **settings: `url`, `allow_demo`, `timeout_s`; of the client `api_key`, `release` and
            `may_change`; all others are options of every call.

    Returns:
        ``score``, 2 P(better) - 1, and ``abstained``: 1 where the score is `abstained_score`
        and says nothing. verl logs both.

    Raises:
        DemoRelease: a demonstration answered, and that is not allowed.
        ProxyGrmError, ValueError: an error of the set-up.
    """
    rollout = _rollout(solution_str, ground_truth, extra_info)
    [reward] = _rewards("reference", settings).of([rollout])
    return _result(reward, abstained_score)


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    abstained_score: float = 0.0,
    **settings: Any,
) -> dict[str, float]:
    """`compute_score`, awaited: verl then asks for all rollouts at once."""
    rollout = _rollout(solution_str, ground_truth, extra_info)
    [reward] = await _rewards("reference", settings).of_async([rollout])
    return _result(reward, abstained_score)


def compute_score_batch(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    mode: Mode = "group",
    abstained_score: float = 0.0,
    **settings: Any,
) -> list[dict[str, float]]:
    """For verl's batch manager: rollouts of the same question are ranked with each other.

    Args:
        data_sources: not used.
        solution_strs: the rollouts' texts.
        ground_truths: references, where `extra_infos` have none.
        extra_infos: of each rollout, `question` and `images` or `image`.
        mode: ``reference`` compares each with its reference instead.
        abstained_score: see `compute_score`.
        **settings: see `compute_score`.
    """
    given = zip(solution_strs, ground_truths, extra_infos, strict=True)
    rewards = _rewards(mode, settings).of([_rollout(*one) for one in given])
    return [_result(reward, abstained_score) for reward in rewards]


def _rollout(solution: str, ground_truth: Any, extra: Mapping[str, Any] | None) -> Rollout:
    asked = extra or {}
    if not isinstance(asked.get("question"), str):
        raise ValueError("extra_info of each row needs the question: {'question': …, 'images': …}")
    reference = asked.get("reference", ground_truth)
    return Rollout(
        asked["question"],
        solution,
        as_images(asked.get("images")) or as_images(asked.get("image")),
        reference if isinstance(reference, str) else None,
    )


def _result(reward: Reward, abstained_score: float) -> dict[str, float]:
    if reward.value is None:
        return {"score": abstained_score, "abstained": 1.0}
    return {"score": reward.value, "abstained": 0.0}


def close() -> None:
    """Gives all connections back; they are opened again when needed."""
    while _KEPT:
        _KEPT.popitem()[1].close()


def _rewards(mode: Mode, settings: Mapping[str, Any]) -> Rewards:
    """One for each configuration, so that connections are kept."""
    options = {name: value for name, value in settings.items() if name not in _OF_VERL}
    named = ("url", "allow_demo", "timeout_s")
    known = {*RewardOptions.__optional_keys__, *named, *_OF_CLIENT}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise TypeError(f"no setting is called {', '.join(unknown)}; there are {sorted(known)}")
    key = repr((mode, sorted(options.items())))  # a value may be a table
    with _CHOOSING:
        if key not in _KEPT:
            of_rewards = {name: options.pop(name) for name in named if name in options}
            client = {name: options.pop(name) for name in _OF_CLIENT if name in options}
            _KEPT[key] = Rewards(mode=mode, options=options, client=client, **of_rewards)
        return _KEPT[key]
