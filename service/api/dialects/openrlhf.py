"""OpenRLHF's requests to a remote reward model: each rollout against its reference.

Read from OpenRLHF/OpenRLHF: ``openrlhf/utils/agent.py`` and ``openrlhf/cli/serve_rm.py``. Its
client waits 180 s and asks five times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import from_json
from typing_extensions import override

from service.api.dialects.contract import (
    MOST_ROLLOUTS,
    Dialect,
    Foreign,
    Picture,
    Texts,
    patiently,
)
from service.api.dialects.transcripts import response_in
from service.api.gateway import Gateway
from service.api.schemas.requests import Response
from service.calls import Call
from service.process_pool import Refused

_CLIENT_WAITS_S = 180.0
_LEEWAY_S = 5.0
_ABSTAINED = 0.0
"""OpenRLHF takes numbers alone; ``extra_logs.failed`` says which of them say nothing."""


class _Label(Foreign):
    question: str
    reference: Response
    images: Annotated[tuple[Picture, ...], Field(max_length=64)] = ()


def _unwrapped(label: object) -> object:
    """A label that may be a JSON text."""
    if not isinstance(label, str):
        return label
    try:
        return from_json(label)
    except ValueError:
        raise ValueError("no JSON with question, images and reference") from None


class _Request(Foreign):
    query: Texts
    prompts: Texts
    labels: Annotated[
        tuple[Annotated[_Label, BeforeValidator(_unwrapped)], ...], Field(max_length=MOST_ROLLOUTS)
    ]


class OpenRlhf(Dialect[tuple[Call | None, ...]]):
    """`labels` carry `{"question", "images", "reference"}` as JSON; the reward is 2 P - 1."""

    path: ClassVar[str] = "/get_reward"

    @override
    def read(self, body: Mapping[str, Any]) -> tuple[Call | None, ...]:
        asked = _Request.model_validate(body)
        if not len(asked.query) == len(asked.prompts) == len(asked.labels):
            raise Refused("query, prompts and labels: one of each for every rollout")
        rollouts = zip(asked.query, asked.prompts, asked.labels, strict=True)
        return tuple(_call(*rollout) for rollout in rollouts)

    @override
    def judgements(self, asked: tuple[Call | None, ...]) -> int:
        return len(asked)

    @override
    async def answer(self, gateway: Gateway, asked: tuple[Call | None, ...]) -> dict[str, Any]:
        calls = [call for call in asked if call is not None]
        scored = await patiently(gateway, calls, gateway.scoring.score, _CLIENT_WAITS_S - _LEEWAY_S)
        told = iter(scored)
        found = [None if call is None else next(told).judgement.probability for call in asked]
        rewards = [_ABSTAINED if one is None else 2 * one - 1 for one in found]
        scores = [(reward + 1) / 2 for reward in rewards]
        failed = [float(one is None) for one in found]
        return {"rewards": rewards, "scores": scores, "extra_logs": {"failed": failed}}


def _call(query: str, prompt: str, label: _Label) -> Call | None:
    """What is asked about a rollout; nothing of one that says nothing."""
    if not (said := response_in(query, prompt)):
        return None
    images = tuple(image.given() for image in label.images)
    return Call(label.question, (said, label.reference), images)
