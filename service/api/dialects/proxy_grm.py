"""The published Proxy-GRM trainer's requests to its proxy: +1 or -1 for one rubric.

Read from Qwen-Applications/Proxy-GRM: ``proxy/proxy.py`` and
``verl/verl/utils/reward_score/grm_reward_with_instruct.py``. Its client waits 120 s and takes every
status but 200 for a reward of 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from typing_extensions import override

from models.comparison import Position
from service.api.dialects.contract import Dialect, Foreign, given_image, patiently, read
from service.api.gateway import Gateway
from service.calls import Call, GivenRubric
from service.errors import Abstained, InvalidRequest
from service.verifying import Verified

_CLIENT_WAITS_S = 120.0
_LEEWAY_S = 5.0
_VERDICT_TAGS = re.compile(r"<(?:eval|answer)>")


class _Request(Foreign):
    question: str
    chosen: str
    rejected: str
    rubric: str
    answer: str | int
    image: str | None = None


class ProxyGrm(Dialect):
    """`chosen` and `rejected` are positions 1 and 2, whichever is better; `answer` says that."""

    path: ClassVar[str] = "/get_reward_mllm"

    @override
    def speaks(self, body: Mapping[str, Any]) -> bool:
        return "query" not in body

    @override
    async def answer(self, gateway: Gateway, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = read(_Request, body)
        label = _label(str(asked.answer))
        images = (given_image(asked.image),) if asked.image else ()
        rubric = GivenRubric(_without_verdict(asked.rubric))

        async def verify(left_s: float) -> Verified:
            responses = (asked.chosen, asked.rejected)
            call = Call(asked.question, responses, images, rubric, timeout_s=left_s)
            return await gateway.verifying.verify(call, label)

        verified = await patiently(verify, _CLIENT_WAITS_S - _LEEWAY_S)
        if verified.reward is None:
            raise Abstained(f"the proxy's answer is {verified.opinion.reason}; there is no reward")
        return {"reward": verified.reward}


def _label(answer: str) -> Position:
    """The gold position: a text in which one of 1 and 2 stands."""
    found = set(re.findall("[12]", answer))
    if len(found) != 1:
        raise InvalidRequest("answer: this names neither or both of 1 and 2")
    return 1 if found == {"1"} else 2


def _without_verdict(rubric: str) -> str:
    """The client closes whatever the policy wrote; a verdict in it would be told to the proxy."""
    if _VERDICT_TAGS.search(rubric):
        raise InvalidRequest("rubric: the policy closed none, and its verdict is in the text")
    return rubric
