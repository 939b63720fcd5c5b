"""A proxy on another server, asked by the protocol that the paper's code published.

``POST /get_reward_mllm`` takes a comparison, a rubric and the position of the better response. It
answers ``{"reward": 1.0}`` where its verdict is that position and ``-1.0`` otherwise, as published
servers do for an output that they cannot read, too. So whoever gets -1 for one position asks for
the other, and -1 for both is an abstention. A server of this service says an abstention outright.
"""

from __future__ import annotations

from typing import Any, Self

from typing_extensions import override

from models.comparison import Comparison, Position
from models.judgement import write_rubric
from models.neutralise import Neutraliser
from models.rubric import Rubric
from service.engines import Priority
from service.errors import ContextExceeded
from service.evaluators.contract import Evaluator, EvaluatorConfig, Opinion, Surroundings
from service.evaluators.remote import (
    BadAnswer,
    HttpUrl,
    JsonServer,
    ServerAbstained,
    data_uri,
)
from service.judging import Usage

_MOST_IMAGES = 1


class ProxyServerConfig(EvaluatorConfig):
    """Where it is.

    Attributes:
        url: in whole, as in ``http://127.0.0.1:20540/get_reward_mllm``.
    """

    url: HttpUrl


class ProxyServerEvaluator(Evaluator):
    """Says which response is better, and not how sure it is."""

    Config = ProxyServerConfig

    def __init__(self, server: JsonServer, neutralise: Neutraliser) -> None:
        self._server = server
        self._neutralise = neutralise

    @override
    @classmethod
    def build(cls, config: EvaluatorConfig, around: Surroundings) -> Self:
        assert isinstance(config, ProxyServerConfig)
        return cls(JsonServer(config.url, config.api_key), around.release.judge.neutralise)

    @override
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        if len(comparison.images) > _MOST_IMAGES:
            raise ContextExceeded("the published proxy protocol has room for one image")
        first, second = comparison.responses
        texts = {"question": comparison.question, "chosen": first, "rejected": second}
        neutral = {name: self._neutralise(text) for name, text in texts.items()}
        criteria = self._neutralise(rubric.text)
        body = {name: text.text for name, text in neutral.items()}
        body["rubric"] = write_rubric(Rubric(criteria.text))
        body["image"] = await data_uri(comparison.images[0]) if comparison.images else ""
        try:
            if await self._prefers(1, body):
                return Opinion.prefers(1, Usage(calls=1))
        except ServerAbstained:
            return Opinion.abstains("unreadable", Usage(calls=1))
        if await self._prefers(2, body):
            return Opinion.prefers(2, Usage(calls=2))
        return Opinion.abstains("unreadable", Usage(calls=2))

    @override
    async def close(self) -> None:
        await self._server.close()

    async def _prefers(self, position: Position, body: dict[str, str]) -> bool:
        answer = await self._server.ask(body | {"answer": str(position)})
        reward: Any = answer.get("reward")
        if isinstance(reward, bool) or reward not in (1, -1):
            raise BadAnswer(f"a reward that is neither 1 nor -1: {str(answer)[:200]}")
        return reward == 1
