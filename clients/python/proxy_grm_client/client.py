"""Asking the service, waiting (`Client`) or awaiting (`AsyncClient`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self, Unpack

import httpx

from proxy_grm_client.answers import Judgement, Rubric, Verification, WrittenRubric
from proxy_grm_client.exchange import (
    Answer,
    Exchange,
    Pause,
    RubricOptions,
    ScoreOptions,
    VerifyOptions,
    checked_url,
    rubric_exchange,
    score_exchange,
    verify_exchange,
)
from proxy_grm_client.images import ImageLike

DEFAULT_URL = "http://127.0.0.1:8000"


class Client:
    """Asks the service and waits for the answer. Connections are reused; threads may share one.

    Args:
        url: where the service listens.
        timeout_s: seconds for a whole call, retries included.
        transport: used instead of the network, in tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=checked_url(url), transport=transport)
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connections back."""
        self._http.close()

    def score(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        **options: Unpack[ScoreOptions],
    ) -> Judgement:
        """Which of two responses is better, why, and how sure?

        Args:
            question: what both responses answer.
            responses: the two candidates.
            images: paths, bytes, ``data:`` URIs or PIL images.
            **options: see `proxy_grm_client.exchange.ScoreOptions`.

        Raises:
            ProxyGrmError: see `proxy_grm_client.errors`. An abstention is not an error.
        """
        return self._ask(score_exchange(question, responses, images, options, self._timeout_s))

    def rubric(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        **options: Unpack[RubricOptions],
    ) -> WrittenRubric:
        """By what should these responses be judged?

        Raises:
            ProxyGrmError: see `proxy_grm_client.errors`.
        """
        return self._ask(rubric_exchange(question, responses, images, options, self._timeout_s))

    def verify(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        *,
        rubric: str | Rubric,
        **options: Unpack[VerifyOptions],
    ) -> Verification:
        """Does an evaluator, shown nothing but the rubric, find the same response better?

        Args:
            question: what both responses answer.
            responses: the two candidates, in the order in which they are read.
            images: paths, bytes, ``data:`` URIs or PIL images.
            rubric: to judge by: its text, its id (``rub_…``) or one that came from the service.
            **options: see `proxy_grm_client.exchange.VerifyOptions`; a `label` brings a reward.

        Raises:
            NotFound: the release that is served has no proxy.
            ProxyGrmError: see `proxy_grm_client.errors`. An abstention is not an error.
        """
        asked = {**options, "rubric": rubric}
        return self._ask(verify_exchange(question, responses, images, asked, self._timeout_s))

    def _ask(self, exchange: Exchange[Answer]) -> Answer:
        while True:
            try:
                outcome = self._http.post(
                    exchange.path, json=exchange.payload(), timeout=exchange.http_timeout_s
                )
            except httpx.RequestError as cause:
                outcome = cause
            settled = exchange.settle(outcome)
            if not isinstance(settled, Pause):
                return settled
            time.sleep(settled.seconds)


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited.

    Args:
        url: where the service listens.
        timeout_s: seconds for a whole call, retries included.
        transport: used instead of the network, in tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(
            base_url=checked_url(url), transport=transport, limits=limits
        )
        self._timeout_s = timeout_s

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

    async def _ask(self, exchange: Exchange[Answer]) -> Answer:
        while True:
            try:
                outcome = await self._http.post(
                    exchange.path, json=exchange.payload(), timeout=exchange.http_timeout_s
                )
            except httpx.RequestError as cause:
                outcome = cause
            settled = exchange.settle(outcome)
            if not isinstance(settled, Pause):
                return settled
            await asyncio.sleep(settled.seconds)
