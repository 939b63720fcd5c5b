"""Calls through the client and a job, while something is done to what answers them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from proxy_grm_client import AsyncClient
from typing_extensions import override

from loadtests.arrivals import TYPED_REFUSALS, Answered, Outcome, paced
from loadtests.drills.asking import Known, judged
from loadtests.drills.jobs import compared, finished, job_lines, results, sent_job
from loadtests.drills.manifests.cluster import Cluster
from loadtests.drills.rows import Row, Scale

TOLERANCE = {"scripted": 0.0, "vllm": 0.02}
_LONGEST_S = 1800.0
_PATIENCE_S = 300.0
_AROUND_S = 2.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What calls met with before they were tried again.

    Attributes:
        refusals: typed ones by their code.
        others: everything else that was no good answer, by what it was.
    """

    refusals: Counter[str] = field(default_factory=Counter[str])
    others: Counter[str] = field(default_factory=Counter[str])

    @property
    def figures(self) -> dict[str, float]:
        """How many there were of each kind."""
        return {"retried_refusals": self.refusals.total(), "retried_others": self.others.total()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What they were."""
        both = self.refusals + self.others
        return tuple(f"tried again: {times} × {code}" for code, times in both.items())

    def saw(self, status: int, content: bytes) -> None:
        """Counts an answer that is no 2xx."""
        try:
            code = str(json.loads(content)["code"])
        except (ValueError, KeyError, TypeError):
            code = str(status)
        (self.refusals if code in TYPED_REFUSALS else self.others)[code] += 1


class Tallied(httpx.AsyncBaseTransport):
    """A network that keeps count of what goes wrong on it."""

    def __init__(self, network: httpx.AsyncBaseTransport, tally: Tally) -> None:
        self._network = network
        self._tally = tally

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            answer = await self._network.handle_async_request(request)
            content = await answer.aread()
        except httpx.TransportError as error:
            self._tally.others[type(error).__name__] += 1
            raise
        if not answer.is_success:
            self._tally.saw(answer.status_code, content)
        return answer

    @override
    async def aclose(self) -> None:
        await self._network.aclose()


@dataclass(frozen=True)
class Load:
    """What is asked while something happens, and what is known of it from before.

    Attributes:
        cases: comparisons whose verdicts are known.
        lines: of a job.
        calm: its results when nothing happened.
        rate: calls a second.
        met: what calls met with, all that happened together.
    """

    cluster: Cluster
    scale: Scale
    cases: Known
    lines: list[bytes]
    calm: list[dict[str, Any]]
    rate: float
    met: Tally = field(default_factory=Tally)

    @classmethod
    def prepared(cls, cluster: Cluster, scale: Scale, cases: Known) -> Load:
        """With a job of a length that fits, done once in peace."""
        lines = job_lines(scale.count(1000, 40))
        calm = results(cluster, finished(cluster, sent_job(cluster, lines)))
        return cls(cluster, scale, cases, lines, calm, rate=4.0)

    def during(self, name: str, act: Callable[[], float]) -> Row:
        """Calls and works on a job until `act` has ended, which says how many seconds count."""
        job = sent_job(self.cluster, self.lines)
        answers, seconds = asyncio.run(self._called(act))
        found = results(self.cluster, finished(self.cluster, job))
        tolerance = TOLERANCE[self.scale.engine]
        wrong, notes = compared(self.calm, found, len(self.lines), tolerance)
        row = Row.of(name, answers, recovery_s=seconds)
        count = len(self.lines)
        return row.plus(requests=count, ok=count - wrong, wrong=wrong, notes=notes)

    async def _called(self, act: Callable[[], float]) -> tuple[list[Answered], float]:
        done = asyncio.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        client = AsyncClient(
            self.cluster.url,
            api_key=self.cluster.api_key,
            timeout_s=_PATIENCE_S,
            transport=Tallied(httpx.AsyncHTTPTransport(limits=limits), self.met),
        )
        async with client:

            async def one(number: int) -> tuple[Outcome, str]:
                return await judged(client, self.cases, number)

            calling = asyncio.create_task(paced(self.rate, _LONGEST_S, one, done.is_set))
            await asyncio.sleep(_AROUND_S)
            try:
                seconds = await asyncio.to_thread(act)
                await asyncio.sleep(_AROUND_S)
            finally:
                done.set()
            return await calling, seconds
