"""OpenRLHF's requests to a remote reward model: each rollout against its reference.

Read from OpenRLHF/OpenRLHF: ``openrlhf/utils/agent.py`` and ``openrlhf/cli/serve_rm.py``. Its
client waits 180 s and asks five times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from typing_extensions import override

from service.api.dialects.contract import Dialect, Foreign, given_image, patiently, read
from service.api.dialects.transcripts import response_in
from service.api.gateway import Gateway
from service.calls import Call
from service.concurrency import together
from service.errors import InvalidRequest
from service.scoring import Scored

_CLIENT_WAITS_S = 180.0
_LEEWAY_S = 5.0
_ABSTAINED = 0.0
"""OpenRLHF takes numbers alone; ``extra_logs.failed`` says which of them say nothing."""


class _Label(Foreign):
    question: str
    reference: str
    images: tuple[str | dict[str, Any], ...] = ()


class _Request(Foreign):
    query: tuple[str, ...]
    prompts: tuple[str, ...]
    labels: tuple[str | dict[str, Any], ...]


class OpenRlhf(Dialect):
    """`labels` carry `{"question", "images", "reference"}` as JSON; the reward is 2 P - 1."""

    path: ClassVar[str] = "/get_reward"

    @override
    async def answer(self, gateway: Gateway, body: Mapping[str, Any]) -> dict[str, Any]:
        asked = read(_Request, body)
        if not len(asked.query) == len(asked.prompts) == len(asked.labels):
            raise InvalidRequest("query, prompts and labels: one of each for every rollout")
        calls = [_call(*one) for one in zip(asked.query, asked.prompts, asked.labels, strict=True)]
        found = await together(_probability(gateway, call) for call in calls)
        rewards = [_ABSTAINED if one is None else 2 * one - 1 for one in found]
        scores = [(reward + 1) / 2 for reward in rewards]
        failed = [float(one is None) for one in found]
        return {"rewards": rewards, "scores": scores, "extra_logs": {"failed": failed}}


def _call(query: str, prompt: str, label: str | dict[str, Any]) -> Call | None:
    """What is asked about a rollout; nothing of one that says nothing."""
    try:
        asked = read(_Label, json.loads(label) if isinstance(label, str) else label)
    except (ValueError, RecursionError):
        raise InvalidRequest("labels: no JSON with question, images and reference") from None
    if not asked.reference.strip():
        raise InvalidRequest("labels: the reference is empty")
    if not (said := response_in(query, prompt)):
        return None
    responses = (said, asked.reference)
    return Call(asked.question, responses, tuple(given_image(image) for image in asked.images))


async def _probability(gateway: Gateway, call: Call | None) -> float | None:
    """P(the rollout is better); None for an abstention."""
    if call is None:
        return None

    async def score(left_s: float) -> Scored:
        return await gateway.scoring.score(replace(call, timeout_s=left_s))

    return (await patiently(score, _CLIENT_WAITS_S - _LEEWAY_S)).judgement.probability
