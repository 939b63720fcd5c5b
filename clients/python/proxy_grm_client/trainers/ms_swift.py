"""A reward for ms-swift's GRPO, as a plug-in.

A file `proxy_grm_reward.py`, named with ``--external_plugins``:

    from proxy_grm_client.trainers.ms_swift import register
    register("proxy_grm", url="http://judge:8000")

and ``--reward_funcs proxy_grm``. Rollouts of a prompt are ranked with each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from proxy_grm_client.calls import RewardOptions
from proxy_grm_client.trainers.rewards import Mode, Rewards
from proxy_grm_client.trainers.rollouts import Rollout, as_images, question_of

_IMAGE_TAG = "<image>"


def register(
    name: str = "proxy_grm",
    *,
    url: str | None = None,
    mode: Mode = "group",
    allow_demo: bool = False,
    timeout_s: float = 300.0,
    client: Mapping[str, Any] | None = None,
    **options: Unpack[RewardOptions],
) -> type[Any]:
    """Adds the reward to ms-swift's, as an `AsyncORM`; None is an abstention.

    Args:
        name: for ``--reward_funcs``.
        url: where the service listens; absent, ``PROXY_GRM_URL`` or ``http://127.0.0.1:8000``.
        mode: ``group`` ranks a prompt's rollouts with each other in one call; ``reference``
            compares each with the data set's column `reference`.
        allow_demo: be rewarded even by a release that is a demonstration.
        timeout_s: of one ranking or comparison.
        client: further arguments of `proxy_grm_client.AsyncClient`, such as `api_key`.
        **options: of every call; see `proxy_grm_client.calls.RewardOptions`.

    Returns:
        The class that is registered.

    Raises:
        ModuleNotFoundError: ms-swift is not installed.
    """
    from swift.rewards import AsyncORM, orms  # pyright: ignore[reportMissingImports]

    rewards = Rewards(url, mode, allow_demo, timeout_s, {**options}, {**(client or {})})

    class ProxyGrm(AsyncORM):  # pyright: ignore[reportUntypedBaseClass]
        """The net win rate among a prompt's rollouts, or 2 P(better than the reference) - 1."""

        async def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
            found = await rewards.of_async(rollouts_of(completions, columns))
            return [reward.value for reward in found]

    orms[name] = ProxyGrm
    return ProxyGrm


def rollouts_of(completions: Sequence[str], columns: Mapping[str, Any]) -> list[Rollout]:
    """ms-swift's lists as rollouts; the last of each `messages` is the completion itself."""
    nothing = [None] * len(completions)
    given = zip(
        completions,
        columns["messages"],
        columns.get("question") or nothing,
        columns.get("images") or nothing,
        columns.get("reference") or nothing,
        strict=True,
    )
    return [
        Rollout(
            question or question_of(messages[:-1]).replace(_IMAGE_TAG, "").strip(),
            completion,
            as_images(images),
            reference,
        )
        for completion, messages, question, images, reference in given
    ]
