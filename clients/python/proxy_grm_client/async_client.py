"""Asking the service from asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Self, Unpack

import httpx

from proxy_grm_client.batch import Batch
from proxy_grm_client.calls import (
    RankOptions,
    RubricOptions,
    ScoreOptions,
    VerifyOptions,
    rank_exchange,
    rubric_exchange,
    run_exchange,
    score_exchange,
    verify_exchange,
)
from proxy_grm_client.exchange import Answer, Exchange, Pause, connection
from proxy_grm_client.images import ImageLike
from proxy_grm_client.jobs import AsyncJobs
from proxy_grm_client.lines import Lines

if TYPE_CHECKING:
    from proxy_grm_client.answers import (
        Judgement,
        LineResult,
        Ranking,
        Rubric,
        Run,
        Verification,
        WrittenRubric,
    )


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited.

    Args:
        url: where the service listens; absent, ``PROXY_GRM_URL`` or ``http://127.0.0.1:8000``.
        api_key: where the service asks for one; absent, ``PROXY_GRM_API_KEY``.
        timeout_s: seconds for a whole call, retries included.
        release: name or fingerprint of the release that is to judge; absent: the service chooses.
        may_change: a run may go on with another release than it began with; else it ends with
            `ReleaseChanged` when the service does not serve that one any more.
        transport: used instead of the network, in tests.

    >>> import asyncio
    >>> from proxy_grm_client import AsyncClient
    >>> async def both():
    ...     async with AsyncClient() as client:
    ...         return await asyncio.gather(
    ...             client.score("How many?", ["One.", "Two."]),
    ...             client.score("How many?", ["One.", "Three."]),
    ...         )
    >>> [judgement.status for judgement in asyncio.run(both())]
    ['ok', 'ok']
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        release: str | None = None,
        may_change: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(
            **connection(url, api_key, release=release, may_change=may_change),
            transport=transport,
            limits=limits,
        )
        self._timeout_s = timeout_s
        self.jobs = AsyncJobs(self._http, self._ask, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives the connections back."""
        await self._http.aclose()

    async def score(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        **options: Unpack[ScoreOptions],
    ) -> Judgement:
        """`Client.score`, awaited."""
        return await self._ask(
            score_exchange(question, responses, images, options, self._timeout_s)
        )

    async def rubric(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        **options: Unpack[RubricOptions],
    ) -> WrittenRubric:
        """`Client.rubric`, awaited."""
        return await self._ask(
            rubric_exchange(question, responses, images, options, self._timeout_s)
        )

    async def verify(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        *,
        rubric: str | Rubric,
        **options: Unpack[VerifyOptions],
    ) -> Verification:
        """`Client.verify`, awaited."""
        asked = {**options, "rubric": rubric}
        return await self._ask(verify_exchange(question, responses, images, asked, self._timeout_s))

    async def rank(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        **options: Unpack[RankOptions],
    ) -> Ranking:
        """`Client.rank`, awaited."""
        return await self._ask(rank_exchange(question, responses, images, options, self._timeout_s))

    async def run(self, run_id: str) -> Run:
        """`Client.run`, awaited."""
        return await self._ask(run_exchange(run_id, self._timeout_s))

    async def batch(
        self,
        lines: Lines,
        *,
        progress: bool = False,
        patience_s: float = 300.0,
        **options: Unpack[ScoreOptions],
    ) -> AsyncGenerator[LineResult]:
        """`Client.batch`, iterated with ``async for``."""
        batch = Batch(lines, options, options.get("timeout_s", self._timeout_s), patience_s)
        with batch.progress_bar(progress) as count:
            while True:
                for failed in batch.refill():
                    count(failed)
                    yield failed
                if batch.finished:
                    return
                try:
                    async with self._http.stream(**batch.upload()) as outcome:
                        if outcome.status_code != 200:
                            await outcome.aread()
                        async for chunk in outcome.aiter_bytes():
                            for result in batch.feed(chunk):
                                count(result)
                                yield result
                except httpx.RequestError as cause:
                    outcome = cause
                pause = batch.settle(outcome)
                if pause is not None:
                    await asyncio.sleep(pause.seconds)

    async def _ask(self, exchange: Exchange[Answer]) -> Answer:
        while True:
            try:
                outcome = await self._http.request(**exchange.request())
            except httpx.RequestError as cause:
                outcome = cause
            settled = exchange.settle(outcome)
            if not isinstance(settled, Pause):
                return settled
            await asyncio.sleep(settled.seconds)
