"""Rollouts to rewards: a prompt's rollouts ranked with each other, or each against a reference."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from proxy_grm_client.answers import Judgement, Ranking
from proxy_grm_client.async_client import AsyncClient
from proxy_grm_client.calls import Cache, Depth, Priority, RankOrder, RewardOptions
from proxy_grm_client.errors import (
    DemoRelease,
    NotFound,
    ProxyGrmError,
    ReleaseChanged,
    Unauthenticated,
    UnexpectedAnswer,
)
from proxy_grm_client.trainers.background import BackgroundLoop
from proxy_grm_client.trainers.rollouts import Rollout, cohorts

Mode = Literal["group", "reference"]
Answer = TypeVar("Answer", Judgement, Ranking)

_CHOICES = {
    "mode": get_args(Mode),
    "depth": get_args(Depth),
    "order": get_args(RankOrder),
    "priority": get_args(Priority),
    "cache": get_args(Cache),
}
_log = logging.getLogger(__name__)
_AT_ONCE = 64
_MOST_RANKED = 64
_ENDS_A_RUN = (Unauthenticated, NotFound, ReleaseChanged, UnexpectedAnswer)
"""Errors of the set-up, not of one rollout: what follows would go on unrewarded."""


@dataclass(frozen=True, slots=True)
class Reward:
    """One rollout's reward, or why it has none.

    Attributes:
        value: -1..1: the net win rate in its cohort, or 2 P(better than the reference) - 1.
            None is an abstention and must not be counted as a number.
        reason: of an abstention: the judge's, an error's code, ``blank`` (nothing was said),
            ``alone`` (nobody to compare with) or ``no_reference``.
        rubric: by which it was judged.
    """

    value: float | None = None
    reason: str | None = None
    rubric: str | None = None


@dataclass(slots=True)
class Rewards:
    """Asks the service for rewards.

    Args:
        url: where the service listens; absent, ``PROXY_GRM_URL`` or ``http://127.0.0.1:8000``.
        mode: ``group`` ranks the rollouts of a prompt with each other; ``reference`` compares
            each with its reference.
        allow_demo: be rewarded even by a release that is a demonstration.
        timeout_s: of one ranking or comparison.
        options: of every call; see `proxy_grm_client.calls`.
        client: further arguments of `AsyncClient`.

    A rollout that cannot be judged, because of an outage for example, is an abstention with its
    reason, and is logged; an error of the set-up is raised.

    Raises:
        TypeError: an option that trainers do not have.
        ValueError: one that cannot be so.
    """

    url: str | None = None
    mode: Mode = "group"
    allow_demo: bool = False
    timeout_s: float = 300.0
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    client: dict[str, Any] = field(default_factory=dict[str, Any])
    _background: BackgroundLoop = field(init=False, default_factory=BackgroundLoop)
    _asking: tuple[AsyncClient, asyncio.Semaphore] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        names = sorted(RewardOptions.__optional_keys__)
        if unknown := sorted(self.options.keys() - {*names}):
            raise TypeError(f"no option is called {', '.join(unknown)}; there are {names}")
        for name, value in {"mode": self.mode, **self.options}.items():
            allowed = _CHOICES.get(name)
            if allowed is not None and value not in allowed:
                raise ValueError(f"{name}={value!r}: one of {', '.join(allowed)}")

    def of(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        """One reward a rollout, in their order.

        Raises:
            DemoRelease: a demonstration answered, and that is not allowed.
            ProxyGrmError: an error of the set-up.
        """
        return self._background.run(self._of(rollouts))

    async def of_async(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        """`of`, awaited."""
        return await self._background.awaited(self._of(rollouts))

    def preferred(self, pairs: Sequence[Rollout]) -> list[int | None]:
        """Which is better, each response (1) or its reference (2)? None is an abstention.

        Raises:
            DemoRelease: a demonstration answered, and that is not allowed.
            ProxyGrmError: an error of the set-up.
        """

        async def compared(pair: Rollout) -> int | None:
            judgement = await self._score(pair)
            return judgement.preferred if isinstance(judgement, Judgement) else None

        async def all_compared() -> list[int | None]:
            return await asyncio.gather(*(compared(pair) for pair in pairs))

        return self._background.run(all_compared())

    def close(self) -> None:
        """Gives the connections back."""
        if self._asking is not None:
            self._background.run(self._asking[0].close())
            self._asking = None
        self._background.close()

    async def _of(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        if self.mode == "reference":
            return await asyncio.gather(*(self._against_reference(one) for one in rollouts))
        groups = cohorts(rollouts)
        ranked = await asyncio.gather(
            *(self._within([rollouts[index] for index in group]) for group in groups)
        )
        found = {
            index: reward
            for group, rewards in zip(groups, ranked, strict=True)
            for index, reward in zip(group, rewards, strict=True)
        }
        return [found[index] for index in range(len(rollouts))]

    async def _against_reference(self, rollout: Rollout) -> Reward:
        judgement = await self._score(rollout)
        if isinstance(judgement, Reward):
            return judgement
        rubric = judgement.rubric.text if judgement.rubric is not None else None
        if judgement.probability is None:
            return Reward(reason=judgement.reason, rubric=rubric)
        return Reward(2 * judgement.probability - 1, rubric=rubric)

    async def _score(self, pair: Rollout) -> Judgement | Reward:
        if not pair.response.strip():
            return Reward(reason="blank")
        if not (pair.reference or "").strip():
            return Reward(reason="no_reference")
        responses = (pair.response, pair.reference or "")
        return await self._asked(self._client()[0].score, pair, responses)

    async def _within(self, cohort: Sequence[Rollout]) -> list[Reward]:
        """Ranks the rollouts of one prompt, those that say something."""
        rewards = [Reward(reason="blank")] * len(cohort)
        speaking = [index for index, one in enumerate(cohort) if one.response.strip()]
        parts = -(-len(speaking) // _MOST_RANKED)
        for part in (speaking[first::parts] for first in range(parts)):
            ranked = await self._rank([cohort[index] for index in part])
            for index, reward in zip(part, ranked, strict=True):
                rewards[index] = reward
        return rewards

    async def _rank(self, cohort: Sequence[Rollout]) -> list[Reward]:
        if len(cohort) == 1:
            return [Reward(reason="alone")]
        responses = [one.response for one in cohort]
        ranking = await self._asked(self._client()[0].rank, cohort[0], responses)
        if isinstance(ranking, Reward):
            return [ranking] * len(cohort)
        rubric = ranking.rubric.text if ranking.rubric is not None else None
        if ranking.status == "abstain":
            return [Reward(reason=ranking.reason, rubric=rubric)] * len(cohort)
        return [
            Reward(score.reward, rubric=rubric)
            if score.status == "ok"
            else Reward(reason="unreadable", rubric=rubric)
            for score in ranking.scores
        ]

    async def _asked(
        self,
        call: Callable[..., Coroutine[Any, Any, Answer]],
        about: Rollout,
        responses: Sequence[str],
    ) -> Answer | Reward:
        """What the service answers, or the abstention that comes of its error."""
        try:
            async with self._client()[1]:
                answer = await call(about.question, responses, about.images, **self.options)
        except _ENDS_A_RUN:
            raise
        except ProxyGrmError as error:
            _log.warning("no reward: %s: %s", error.code, error)
            return Reward(reason=error.code)
        if answer.release.purpose == "demo" and not self.allow_demo:
            raise DemoRelease(
                f"release {answer.release.name!r} is a demonstration and worth nothing as a "
                "reward; serve a trained one, or say allow_demo=True"
            )
        return answer

    def _client(self) -> tuple[AsyncClient, asyncio.Semaphore]:
        """Made in the background loop, whose connections it holds."""
        if self._asking is None:
            client = AsyncClient(self.url, timeout_s=self.timeout_s, **self.client)
            self._asking = client, asyncio.Semaphore(_AT_ONCE)
        return self._asking
