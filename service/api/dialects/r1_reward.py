"""R1-Reward's requests: rollouts in the chat template beside their prompts, numbers back.

Read from yfzhang114/r1_reward: ``openrlhf/utils/remote_rm_utils.py`` and
``openrlhf/models/remote_rm/math_verifier_mllm.py``. Its own server knows each prompt's answer; here
the rollouts of a prompt are ranked with each other, and the reward is the net win rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from typing_extensions import override

from service.api.dialects.contract import Dialect, Foreign, patiently, read
from service.api.dialects.transcripts import asked_in, response_in
from service.api.gateway import Gateway
from service.calls import Call
from service.concurrency import together
from service.errors import Abstained, InvalidRequest
from service.judging.ranking import RankingOptions
from service.ranking import Ranked

_CLIENT_WAITS_S = 180.0
_LEEWAY_S = 5.0
_MOST_RANKED = 64


class _Request(Foreign):
    query: tuple[str, ...]
    prompts: tuple[str, ...]


class R1Reward(Dialect):
    """`{"query", "prompts"}` to `{"rewards"}`, where each prompt has two rollouts or more."""

    path: ClassVar[str] = "/get_reward_mllm"

    @override
    def speaks(self, body: Mapping[str, Any]) -> bool:
        return "query" in body

    @override
    async def answer(self, gateway: Gateway, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = read(_Request, body)
        if len(asked.query) != len(asked.prompts):
            raise InvalidRequest("query and prompts: one of each for every rollout")
        cohorts: dict[str, list[int]] = {}
        for index, prompt in enumerate(asked.prompts):
            cohorts.setdefault(prompt, []).append(index)
        rewards: dict[int, float] = {}

        async def rank(prompt: str, cohort: list[int]) -> None:
            responses = tuple(response_in(asked.query[index], prompt) for index in cohort)
            if not all(responses):
                raise InvalidRequest("query: a response is empty, and cannot be ranked")
            ranked = await _rank(gateway, prompt, responses)
            rewards.update(zip(cohort, ranked, strict=True))

        await together(rank(prompt, cohort) for prompt, cohort in cohorts.items())
        return {"rewards": [rewards[index] for index in range(len(asked.query))]}


async def _rank(gateway: Gateway, prompt: str, responses: tuple[str, ...]) -> list[float]:
    if not 2 <= len(responses) <= _MOST_RANKED:
        raise InvalidRequest(
            f"prompts: {len(responses)} rollouts of one prompt; 2 to {_MOST_RANKED} can be compared"
        )
    question, images = asked_in(prompt)

    async def rank(left_s: float) -> Ranked:
        call = Call(question, responses, images, timeout_s=left_s)
        return await gateway.rankings.rank(call, RankingOptions())

    ranking = (await patiently(rank, _CLIENT_WAITS_S - _LEEWAY_S)).ranking
    if ranking is None or ranking.unread:
        raise Abstained("a rollout could not be judged, and there are numbers alone to say so")
    return [float(reward) for reward in ranking.reward_N]
