"""Requests at a constant rate, whether or not the service keeps up (an open loop)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Literal

import httpx

Outcome = Literal["ok", "refused", "failed"]
TYPED_REFUSALS = {
    "overloaded",
    "rate_limited",
    "draining",
    "engine_unavailable",
    "deadline_exceeded",
    "store_unavailable",
}
"""Codes that say: not now, or not in the time that there was."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request.

    Attributes:
        outcome: ``ok`` for a 2xx; ``refused`` for a problem document that says when to come back or
            that time ran out; ``failed`` for all else, a broken connection included.
        code: the problem's, the status, or the name of what broke.
        due_s: when it was to be sent, from the beginning of the run.
        seconds: from that moment to the end of its answer, so that a late start counts too.
        late_s: from that moment to its start; much of it is a machine that cannot send so fast.
    """

    outcome: Outcome
    code: str
    due_s: float
    seconds: float
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What to send, and how fast.

    Attributes:
        rate: requests a second.
        seconds: for how long requests are sent.
        timeout_s: after which a request without an answer has failed.
        right: whether a 2xx answers the request of that number; one that does not has failed.
    """

    path: str
    body: Callable[[int], bytes]
    rate: float
    seconds: float
    timeout_s: float = 180.0
    right: Callable[[int, httpx.Response], bool] = lambda _, __: True


async def sent(client: httpx.AsyncClient, arrivals: Arrivals) -> list[Answered]:
    """Sends them all, each at its time, and returns what came of each, in order of arrival."""

    async def one(number: int) -> tuple[Outcome, str]:
        asking = client.post(
            arrivals.path,
            content=arrivals.body(number),
            headers={"content-type": "application/json"},
            timeout=arrivals.timeout_s,
        )
        return await outcome_of(asking, lambda answer: arrivals.right(number, answer))

    return await paced(arrivals.rate, arrivals.seconds, one)


async def paced(
    rate: float,
    seconds: float,
    ask: Callable[[int], Coroutine[None, None, tuple[Outcome, str]]],
    stop: Callable[[], bool] = lambda: False,
) -> list[Answered]:
    """Begins to ask at a constant rate; what came of each, in order of arrival.

    Args:
        rate: a second.
        seconds: for how long.
        ask: by number; how it ended and with what code.
        stop: when it says so, nobody else begins.
    """
    began = time.monotonic()

    async def timed(number: int) -> Answered:
        due_s = number / rate
        late_s = time.monotonic() - began - due_s
        outcome, code = await ask(number)
        return Answered(outcome, code, due_s, time.monotonic() - began - due_s, late_s)

    works: list[asyncio.Task[Answered]] = []
    for number in range(round(rate * seconds)):
        wait_s = began + number / rate - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if stop():
            break
        works.append(asyncio.create_task(timed(number)))
    return list(await asyncio.gather(*works))


async def outcome_of(
    asking: Awaitable[httpx.Response], right: Callable[[httpx.Response], bool] = lambda _: True
) -> tuple[Outcome, str]:
    """How a request ended, and its code; a 2xx that is not right has failed as ``wrong``."""
    try:
        answer = await asking
    except httpx.HTTPError as error:
        return "failed", type(error).__name__
    if answer.is_success:
        return ("ok", str(answer.status_code)) if right(answer) else ("failed", "wrong")
    try:
        code = str(json.loads(answer.content)["code"])
    except (ValueError, KeyError, TypeError):
        return "failed", str(answer.status_code)
    return ("refused" if code in TYPED_REFUSALS else "failed"), code
