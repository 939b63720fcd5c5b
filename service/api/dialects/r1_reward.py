"""R1-Reward's requests: rollouts in the chat template beside their prompts, numbers back.

Read from yfzhang114/r1_reward: ``openrlhf/utils/remote_rm_utils.py`` and
``openrlhf/models/remote_rm/math_verifier_mllm.py``. Its own server knows each prompt's answer; here
the rollouts of a prompt are ranked with each other, and the reward is the net win rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from service.api.dialects.contract import Dialect, Foreign, Texts, patiently
from service.api.dialects.transcripts import asked_in, response_in
from service.api.gateway import Gateway
from service.calls import Call
from service.errors import Abstained
from service.judging.ranking import RankingOptions
from service.process_pool import Refused
from service.ranking import Ranked

_CLIENT_WAITS_S = 180.0
_LEEWAY_S = 5.0
_MOST_RANKED = 64


class _Request(Foreign):
    query: Texts
    prompts: Texts


@dataclass(frozen=True, slots=True)
class _Cohort:
    """The rollouts of one prompt, and where each stands in the request."""

    places: tuple[int, ...]
    call: Call


class R1Reward(Dialect[tuple[_Cohort, ...]]):
    """`{"query", "prompts"}` to `{"rewards"}`, where each prompt has two rollouts or more."""

    path: ClassVar[str] = "/get_reward_mllm"

    @override
    def speaks(self, body: Mapping[str, Any]) -> bool:
        return "query" in body

    @override
    def read(self, body: Mapping[str, Any]) -> tuple[_Cohort, ...]:
        asked = _Request.model_validate(body)
        if len(asked.query) != len(asked.prompts):
            raise Refused("query and prompts: one of each for every rollout")
        places: dict[str, list[int]] = {}
        for place, prompt in enumerate(asked.prompts):
            places.setdefault(prompt, []).append(place)
        return tuple(_cohort(prompt, held, asked.query) for prompt, held in places.items())

    @override
    def judgements(self, asked: tuple[_Cohort, ...]) -> int:
        return sum(len(cohort.places) for cohort in asked)

    @override
    async def answer(self, gateway: Gateway, asked: tuple[_Cohort, ...]) -> dict[str, Any]:
        async def rank(call: Call) -> Ranked:
            return await gateway.rankings.rank(call, RankingOptions())

        calls = [cohort.call for cohort in asked]
        ranked = await patiently(gateway, calls, rank, _CLIENT_WAITS_S - _LEEWAY_S)
        rewards: dict[int, float] = {}
        for cohort, one in zip(asked, ranked, strict=True):
            rewards.update(zip(cohort.places, _rewards(one), strict=True))
        return {"rewards": [rewards[place] for place in range(len(rewards))]}


def _cohort(prompt: str, places: Sequence[int], query: Sequence[str]) -> _Cohort:
    if not 2 <= len(places) <= _MOST_RANKED:
        raise Refused(
            f"prompts: {len(places)} rollouts of one prompt; 2 to {_MOST_RANKED} can be compared"
        )
    responses = tuple(response_in(query[place], prompt) for place in places)
    if not all(responses):
        raise Refused("query: a response is empty, and cannot be ranked")
    question, images = asked_in(prompt)
    return _Cohort(tuple(places), Call(question, responses, images))


def _rewards(ranked: Ranked) -> list[float]:
    if ranked.ranking is None or ranked.ranking.unread:
        raise Abstained("a rollout could not be judged, and there are numbers alone to say so")
    return [float(reward) for reward in ranked.ranking.reward_N]
