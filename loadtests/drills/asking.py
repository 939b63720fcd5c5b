"""Comparisons whose verdicts are known before anything is disturbed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
from proxy_grm_client import AsyncClient, ProxyGrmError
from proxy_grm_client.calls import ScoreOptions

from loadtests.arrivals import TYPED_REFUSALS, Answered, Arrivals, Outcome, outcome_of, paced
from loadtests.bodies import RUBRIC, drawn, encoded
from loadtests.drills.rows import DrillFailed

JSON = {"content-type": "application/json"}
_CALM_TIMEOUT_S = 120.0
_AT_ONCE = 8
_CLIENTS = 32  # the time that a client takes for a request grows with those it has in work
_OPTIONS = ScoreOptions(depth="verdict", rubric=RUBRIC, cache="bypass")


@dataclass(frozen=True, slots=True)
class Known:
    """Comparisons and what the service says of them when it is left in peace.

    Attributes:
        cases: they, without options.
        bodies: as they are sent.
        preferred: what was said of each.
    """

    cases: tuple[dict[str, Any], ...]
    bodies: tuple[bytes, ...]
    preferred: tuple[int, ...]

    def answer(self, number: int) -> int:
        """The response that was preferred."""
        return self.preferred[number % len(self.cases)]

    def body(self, number: int) -> bytes:
        """Of a request of that number; they come again in turn."""
        return self.bodies[number % len(self.bodies)]

    def right(self, number: int, answer: httpx.Response) -> bool:
        """Whether the answer to it is the same as in peace."""
        found = json.loads(answer.content)
        return found["status"] == "ok" and found["preferred"] == self.answer(number)

    def arrivals(self, rate: float, seconds: float, timeout_s: float = 60.0) -> Arrivals:
        """They at a constant rate; an answer that is not the same as in peace has failed."""
        return Arrivals("/score", self.body, rate, seconds, timeout_s, self.right)


async def known(
    url: str, count: int = 64, *, headers: Mapping[str, str] | None = None, **options: Any
) -> Known:
    """Asks for so many verdicts once; also warms the gateway up.

    Args:
        url: of a gateway.
        count: of different comparisons.
        headers: with the key, where the gateway asks for one.
        options: of the requests to come.

    Raises:
        DrillFailed: it does not answer as it should.
    """
    bodies = drawn(count)
    options = {"depth": "verdict", "rubric": {"text": RUBRIC}} | options
    calm = encoded(bodies, **options | {"timeout_s": _CALM_TIMEOUT_S})
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(client: httpx.AsyncClient, body: bytes) -> int:
        async with turns:
            answer = await client.post("/score", content=body, headers=JSON | dict(headers or {}))
        if not answer.is_success:
            raise DrillFailed(f"with nobody else there: {answer.text[:500]}")
        return json.loads(answer.content)["preferred"]

    async with opened(url, _CALM_TIMEOUT_S + 30) as client:
        preferred = await asyncio.gather(*(one(client, body) for body in calm))
    return Known(tuple(bodies), tuple(encoded(bodies, **options)), tuple(preferred))


def opened(url: str, timeout_s: float | None = 60.0) -> httpx.AsyncClient:
    """A client that holds nobody up by having too few connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout_s)


async def asked(url: str, arrivals: Arrivals) -> list[Answered]:
    """What comes of requests that do not wait for each other."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened(url)) for _ in range(_CLIENTS)]

        async def one(number: int) -> tuple[Outcome, str]:
            client = clients[number % len(clients)]
            asking = client.post(arrivals.path, content=arrivals.body(number), headers=JSON)
            return await outcome_of(asking, lambda answer: arrivals.right(number, answer))

        return await paced(arrivals.rate, arrivals.seconds, one)


async def judged(client: AsyncClient, cases: Known, number: int) -> tuple[Outcome, str]:
    """How a call of the client ended, which tries again what is worth it."""
    case = cases.cases[number % len(cases.cases)]
    try:
        found = await client.score(case["question"], case["responses"], case["images"], **_OPTIONS)
    except ProxyGrmError as error:
        return ("refused" if error.code in TYPED_REFUSALS else "failed"), error.code
    if found.status != "ok" or found.preferred != cases.answer(number):
        return "failed", "wrong"
    return "ok", "200"
