"""A gateway that speaks every dialect, and whose judge sometimes mumbles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.engines import GenerationRequest
from service.engines.scripted import ScriptedEngine, written_by_rote

NAMES = ("openrlhf", "proxy_grm", "r1_reward")


def mumbling(request: GenerationRequest) -> str:
    """By rote; nothing that can be read where the text asks for that."""
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    return "hm" if "mumble" in text else written_by_rote(request)


@pytest.fixture
async def speaking(start_gateway: Callable[..., Awaitable[Any]], proxy_release: str) -> Any:
    """The gateway."""
    return await start_gateway(
        mumbling, proxy=ScriptedEngine(mumbling), release=proxy_release, dialects=NAMES
    )
