"""The published Proxy-GRM trainer's requests to its proxy: +1 or -1 for one rubric.

Read from Qwen-Applications/Proxy-GRM: ``proxy/proxy.py`` and
``verl/verl/utils/reward_score/grm_reward_with_instruct.py``. Its client waits 120 s and takes every
status but 200 for a reward of 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field
from typing_extensions import override

from models.comparison import Position
from service.api.dialects.contract import Dialect, Foreign, MaybePicture, patiently
from service.api.gateway import Gateway
from service.api.schemas.requests import Response
from service.calls import Call, GivenRubric
from service.errors import Abstained
from service.process_pool import Refused
from service.verifying import Verified

_CLIENT_WAITS_S = 120.0
_LEEWAY_S = 5.0
_VERDICT_TAGS = re.compile(r"<(?:eval|answer)>")


class _Request(Foreign):
    question: str
    chosen: Response
    rejected: Response
    rubric: str
    answer: str | Annotated[int, Field(strict=True, ge=1, le=2)]
    image: MaybePicture = None


@dataclass(frozen=True, slots=True)
class _Asked:
    call: Call
    label: Position


class ProxyGrm(Dialect[_Asked]):
    """`chosen` and `rejected` are positions 1 and 2, whichever is better; `answer` says that."""

    path: ClassVar[str] = "/get_reward_mllm"

    @override
    def speaks(self, body: Mapping[str, Any]) -> bool:
        return "query" not in body

    @override
    def read(self, body: Mapping[str, Any]) -> _Asked:
        asked = _Request.model_validate(body)
        images = (asked.image.given(),) if asked.image is not None else ()
        rubric = GivenRubric(_without_verdict(asked.rubric))
        call = Call(asked.question, (asked.chosen, asked.rejected), images, rubric)
        return _Asked(call, _label(str(asked.answer)))

    @override
    async def answer(self, gateway: Gateway, asked: _Asked) -> dict[str, Any]:
        async def verify(call: Call) -> Verified:
            return await gateway.verifying.verify(call, asked.label)

        [verified] = await patiently(gateway, [asked.call], verify, _CLIENT_WAITS_S - _LEEWAY_S)
        if verified.reward is None:
            raise Abstained(f"the proxy's answer is {verified.opinion.reason}; there is no reward")
        return {"reward": verified.reward}


def _label(answer: str) -> Position:
    """The gold position: a text in which one of 1 and 2 stands."""
    found = [position for position in "12" if position in answer]
    if len(found) != 1:
        raise Refused("answer: this names neither or both of 1 and 2")
    return 1 if found == ["1"] else 2


def _without_verdict(rubric: str) -> str:
    """The client closes whatever the policy wrote; a verdict in it would be told to the proxy."""
    if _VERDICT_TAGS.search(rubric):
        raise Refused("rubric: the policy closed none, and its verdict is in the text")
    return rubric
