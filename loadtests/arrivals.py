"""Requests at a constant rate, whether or not the service keeps up (an open loop)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import httpx

Outcome = Literal["ok", "refused", "failed"]
_TYPED_REFUSALS = {
    "overloaded",
    "rate_limited",
    "draining",
    "engine_unavailable",
    "deadline_exceeded",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """One request.

    Attributes:
        outcome: ``ok`` for a 2xx; ``refused`` for a problem document that says when to come back or
            that time ran out; ``failed`` for all else, a broken connection included.
        code: the problem's, the status, or the name of what broke.
        due_s: when it was to be sent, from the beginning of the run.
        seconds: from that moment to the end of its answer, so that a late start counts too.
    """

    outcome: Outcome
    code: str
    due_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What to send, and how fast.

    Attributes:
        rate: requests a second.
        seconds: for how long requests are sent.
        timeout_s: after which a request without an answer has failed.
    """

    path: str
    body: Callable[[int], bytes]
    rate: float
    seconds: float
    timeout_s: float = 180.0


async def sent(client: httpx.AsyncClient, arrivals: Arrivals) -> list[Answered]:
    """Sends them all, each at its time, and returns what came of each, in order of arrival."""
    began = time.monotonic()
    works: list[asyncio.Task[Answered]] = []
    for number in range(round(arrivals.rate * arrivals.seconds)):
        due_s = number / arrivals.rate
        wait_s = began + due_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        works.append(asyncio.create_task(_sent_one(client, arrivals, number, began)))
    return list(await asyncio.gather(*works))


async def _sent_one(
    client: httpx.AsyncClient, arrivals: Arrivals, number: int, began: float
) -> Answered:
    due_s = number / arrivals.rate
    try:
        answer = await client.post(
            arrivals.path,
            content=arrivals.body(number),
            headers={"content-type": "application/json"},
            timeout=arrivals.timeout_s,
        )
        outcome, code = _outcome(answer)
    except httpx.HTTPError as error:
        outcome, code = "failed", type(error).__name__
    return Answered(outcome, code, due_s, time.monotonic() - began - due_s)


def _outcome(answer: httpx.Response) -> tuple[Outcome, str]:
    if answer.is_success:
        return "ok", str(answer.status_code)
    try:
        code = json.loads(answer.content)["code"]
    except (ValueError, KeyError, TypeError):
        return "failed", str(answer.status_code)
    return ("refused" if code in _TYPED_REFUSALS else "failed"), str(code)
