"""Both clients behind one way to ask, so that every test is about both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from proxy_grm_client import AsyncClient, Client

Handler = Callable[[httpx.Request], httpx.Response]

JUDGEMENT: dict[str, Any] = {
    "id": "score_1",
    "status": "ok",
    "reason": None,
    "preferred": 1,
    "probability": 0.83,
    "order_consistent": None,
    "stopped": "complete",
    "rubric": {
        "id": "rub_" + "0" * 24,
        "text": "1. Truth (100%)",
        "criteria": [{"name": "Truth", "description": "", "weight": 1.0}],
        "justification": None,
    },
    "evaluation": "The first is true.",
    "verdicts": [{"order": "given", "preferred": 1, "probability": 0.83, "text": "..."}],
    "evaluators": [],
    "agreement": None,
    "release": {"name": "tiny", "fingerprint": "f", "purpose": "demo"},
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 0, "calls": 1},
    "timing": {"queue_s": 0.0, "image_s": 0.0, "engine_s": 0.1, "total_s": 0.1},
    "cached": False,
}


@pytest.fixture
def judgement() -> dict[str, Any]:
    """What the service answers."""
    return json.loads(json.dumps(JUDGEMENT))


@pytest.fixture
def verification(judgement: dict[str, Any]) -> dict[str, Any]:
    """What the service answers to a call with a label."""
    kept = ("status", "reason", "preferred", "probability", "release", "usage", "timing")
    return {"id": "verify_1", "reward": 1.0} | {name: judgement[name] for name in kept}


@pytest.fixture
def problem() -> Callable[..., httpx.Response]:
    """Makes the service's error documents."""

    def made(status: int, code: str, retry_after: str | None = None) -> httpx.Response:
        document = {
            "type": f"urn:proxy-grm:error:{code}",
            "title": code,
            "status": status,
            "detail": f"this is {code}",
            "code": code,
            "request_id": "req_7",
        }
        headers = {"content-type": "application/problem+json"}
        if retry_after is not None:
            headers["retry-after"] = retry_after
        return httpx.Response(status, headers=headers, content=json.dumps(document))

    return made


@pytest.fixture(params=["waiting", "awaiting"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Asks with the client that waits, and in another test with the one that is awaited."""

    def waiting(client: dict[str, Any], call: str, *args: Any, **options: Any) -> Any:
        with Client(**client) as opened:
            return getattr(opened, call)(*args, **options)

    def awaiting(client: dict[str, Any], call: str, *args: Any, **options: Any) -> Any:
        async def awaited() -> Any:
            async with AsyncClient(**client) as opened:
                return await getattr(opened, call)(*args, **options)

        return asyncio.run(awaited())

    asking = waiting if request.param == "waiting" else awaiting

    def asked(
        handler: Handler | None,
        *,
        call: str = "score",
        question: str = "Which?",
        responses: Sequence[str] = ("One.", "Two."),
        client: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        settings = {"url": "http://grm", "timeout_s": 5.0} | (client or {})
        if handler is not None:
            settings["transport"] = httpx.MockTransport(handler)
        return asking(settings, call, question, list(responses), **options)

    return asked
