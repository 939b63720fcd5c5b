"""Asking the service and waiting for the answer."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
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
from proxy_grm_client.jobs import Jobs
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


class Client:
    """Asks the service and waits for the answer. Connections are reused; threads may share one.

    Args:
        url: where the service listens; absent, ``PROXY_GRM_URL`` or ``http://127.0.0.1:8000``.
        api_key: where the service asks for one; absent, ``PROXY_GRM_API_KEY``.
        timeout_s: seconds for a whole call, retries included.
        release: name or fingerprint of the release that is to judge; absent: the service chooses.
        may_change: a run may go on with another release than it began with; else it ends with
            `ReleaseChanged` when the service does not serve that one any more.
        transport: used instead of the network, in tests.

    Attributes:
        jobs: what takes longer than a connection lasts; see `Jobs`.

    An error is raised as a class of `proxy_grm_client.errors`. What passes (a full queue, a
    restart, no connection) is asked again until the time is up.

    >>> with Client() as client:
    ...     client.score("How many cats are there?", ["One."])
    Traceback (most recent call last):
    proxy_grm_client.errors.InvalidRequest: responses.1: this is required [req_...]
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        release: str | None = None,
        may_change: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(
            **connection(url, api_key, release=release, may_change=may_change),
            transport=transport,
        )
        self._timeout_s = timeout_s
        self.jobs = Jobs(self._http, self._ask, timeout_s)

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
            images: see `proxy_grm_client.images.ImageLike`.
            **options: see `proxy_grm_client.calls.ScoreOptions`.

        Raises:
            ProxyGrmError: see `proxy_grm_client.errors`. An abstention is not an error.

        >>> import numpy
        >>> judgement = client.score(
        ...     "What color is this?", ["Black.", "White."],
        ...     [numpy.zeros((64, 64, 3), "uint8")], order="both",
        ... )
        >>> [verdict.order for verdict in judgement.verdicts]
        ['given', 'swapped']
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

        >>> written = client.rubric("How many cats are there?", ["One.", "Two."], ["cat.jpg"])
        >>> judgement = client.score(
        ...     "How many cats are there?", ["One.", "Two."], ["cat.jpg"], rubric=written.rubric
        ... )
        >>> judgement.rubric.id == written.rubric.id
        True
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
            images: see `proxy_grm_client.images.ImageLike`.
            rubric: to judge by: its text, its id (``rub_…``) or one that came from the service.
            **options: see `proxy_grm_client.calls.VerifyOptions`; a `label` brings a reward.

        Raises:
            NotFound: the release that is served has no proxy.
            ProxyGrmError: see `proxy_grm_client.errors`. An abstention is not an error.

        >>> verified = client.verify(
        ...     "How many cats are there?", ["One.", "Two."], ["cat.jpg"],
        ...     rubric="1. Count (100%): the number is right.", label=1,
        ... )
        >>> verified.reward in (-1, 1)
        True
        """
        asked = {**options, "rubric": rubric}
        return self._ask(verify_exchange(question, responses, images, asked, self._timeout_s))

    def rank(
        self,
        question: str,
        responses: Sequence[str],
        images: Sequence[ImageLike] = (),
        **options: Unpack[RankOptions],
    ) -> Ranking:
        """In which order of quality do 2 to 64 responses stand, and how far apart?

        Args:
            question: what all of them answer.
            responses: the candidates.
            images: see `proxy_grm_client.images.ImageLike`.
            **options: see `proxy_grm_client.calls.RankOptions`.

        Raises:
            ProxyGrmError: see `proxy_grm_client.errors`. An abstention is not an error.

        >>> ranking = client.rank("How many cats?", ["One.", "Two.", "Three."], ["cat.jpg"])
        >>> sorted(ranking.ranking)
        [0, 1, 2]
        >>> abs(sum(score.reward for score in ranking.scores)) < 1e-6
        True
        """
        return self._ask(rank_exchange(question, responses, images, options, self._timeout_s))

    def run(self, run_id: str) -> Run:
        """Is the judge of a run being fooled? Rates over what was judged with this `run_id`.

        Args:
            run_id: as given to `score`, `batch` or `rank`. Counts are made after the answers.

        Raises:
            NotFound: nothing is kept of such a run, or the service's Redis is away.
        """
        return self._ask(run_exchange(run_id, self._timeout_s))

    def batch(
        self,
        lines: Lines,
        *,
        progress: bool = False,
        patience_s: float = 300.0,
        **options: Unpack[ScoreOptions],
    ) -> Generator[LineResult]:
        """Judges many comparisons; results come as they finish, in any order.

        A line that cannot be judged is a `FailedLine` among the judgements. A service that goes
        away is asked again: each line gets one result.

        Args:
            lines: what `score` takes, by name, and an `id` by which to know the result.
            progress: shows a bar on standard error; needs rich.
            patience_s: without any result, before what is left is given up.
            **options: of every line that does not say otherwise.

        Raises:
            ProxyGrmError: the batch as a whole cannot go on; see `proxy_grm_client.errors`.

        >>> lines = [
        ...     {"id": "good", "question": "How many?", "responses": ["One.", "Two."]},
        ...     {"id": "bad", "question": "How many?", "responses": ["One.", " "]},
        ... ]
        >>> sorted((result.id, result.status) for result in client.batch(lines))
        [('bad', 'error'), ('good', 'ok')]
        """
        batch = Batch(lines, options, options.get("timeout_s", self._timeout_s), patience_s)
        with batch.progress_bar(progress) as count:
            while True:
                for failed in batch.refill():
                    count(failed)
                    yield failed
                if batch.finished:
                    return
                try:
                    with self._http.stream(**batch.upload()) as outcome:
                        if outcome.status_code != 200:
                            outcome.read()
                        for chunk in outcome.iter_bytes():
                            for result in batch.feed(chunk):
                                count(result)
                                yield result
                except httpx.RequestError as cause:
                    outcome = cause
                pause = batch.settle(outcome)
                if pause is not None:
                    time.sleep(pause.seconds)

    def _ask(self, exchange: Exchange[Answer]) -> Answer:
        while True:
            try:
                outcome = self._http.request(**exchange.request())
            except httpx.RequestError as cause:
                outcome = cause
            settled = exchange.settle(outcome)
            if not isinstance(settled, Pause):
                return settled
            time.sleep(settled.seconds)
