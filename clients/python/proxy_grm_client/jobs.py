"""Jobs: what takes longer than a connection lasts. Reached as ``Client.jobs``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Unpack

import httpx

from proxy_grm_client.calls import ScoreOptions, cancel_exchange, source_exchange, status_exchange
from proxy_grm_client.exchange import Exchange
from proxy_grm_client.job_transfer import JobLines, Looking, Reading, ResultOrder, Submission
from proxy_grm_client.lines import Lines
from proxy_grm_client.progress import job_bar

if TYPE_CHECKING:
    from proxy_grm_client.answers import JobAccepted, JobStatus, LineResult


class Jobs:
    """Comparisons that workers judge, a job at a time; they outlive this program.

    >>> lines = [
    ...     {"id": "good", "question": "How many?", "responses": ["One.", "Two."]},
    ...     {"id": "bad", "question": "How many?", "responses": ["One.", " "]},
    ... ]
    >>> job = client.jobs.submit(lines, order="both")
    >>> client.jobs.wait(job.id).state
    'done'
    >>> [(result.id, result.status) for result in client.jobs.results(job.id)]
    [('good', 'ok'), ('bad', 'error')]
    """

    def __init__(
        self, http: httpx.Client, ask: Callable[[Exchange[Any]], Any], timeout_s: float
    ) -> None:
        self._http = http
        self._ask = ask
        self._timeout_s = timeout_s

    def submit(self, lines: Lines, **options: Unpack[ScoreOptions]) -> JobAccepted:
        """Hands comparisons over; the answer has the job's `id`.

        Args:
            lines: what `Client.score` takes, by name, and an `id` by which to know the result;
                ``line-7`` for the seventh that has none.
            **options: of every line that does not say otherwise.

        Raises:
            ServiceUnreachable: also where it broke off so late that there may be a job all the
                same: it is not sent twice.
            ProxyGrmError: see `proxy_grm_client.errors`. One line that can never be judged is
                enough; then nothing is sent.
        """
        with JobLines(lines, options, self._timeout_s) as sent:
            return self._ask(Submission(sent, self._timeout_s, awaited=False))

    def submit_source(self, url: str) -> JobAccepted:
        """A job whose lines the service reads itself, where its operator allows that.

        Args:
            url: of a .jsonl, .ndjson or .parquet as the service sees it.

        Raises:
            ProxyGrmError: see `proxy_grm_client.errors`.
        """
        return self._ask(source_exchange(url, self._timeout_s))

    def status(self, job_id: str) -> JobStatus:
        """How far a job has come.

        Raises:
            NotFound: there is no such job, or no longer.
        """
        return self._ask(status_exchange(job_id, self._timeout_s))

    def wait(
        self, job_id: str, *, progress: bool = False, timeout_s: float | None = None
    ) -> JobStatus:
        """Waits until the job has ended; look at the `state` how.

        Args:
            job_id: of the job.
            progress: shows a bar on standard error; needs rich.
            timeout_s: absent, it waits as long as the job takes.

        Raises:
            DeadlineExceeded: the job goes on; wait again.
            NotFound: there is no such job, or no longer.
        """
        looking = Looking(timeout_s)
        with job_bar(progress) as look:
            while True:
                status = self.status(job_id)
                look(status)
                pause = looking.settle(status)
                if pause is None:
                    return status
                time.sleep(pause.seconds)

    def results(
        self, job_id: str, *, order: ResultOrder = "input", patience_s: float = 300.0
    ) -> Generator[LineResult]:
        """Each line's result, as they are there; ends when the job has.

        Args:
            job_id: of the job.
            order: ``input``, that of the lines; ``completed`` gives what is finished first.
            patience_s: without an answer of the service, before it is given up.

        Raises:
            NotFound: there is no such job, or no longer.
            ProxyGrmError: see `proxy_grm_client.errors`.
        """
        reading = Reading(job_id, order, patience_s)
        while not reading.complete:
            try:
                with self._http.stream(**reading.request()) as outcome:
                    if reading.begins(outcome):
                        for chunk in outcome.iter_bytes():
                            yield from reading.feed(chunk)
                    else:
                        outcome.read()
            except httpx.RequestError as cause:
                outcome = cause
            pause = reading.settle(outcome)
            if pause is not None:
                time.sleep(pause.seconds)

    def cancel(self, job_id: str) -> JobStatus:
        """Ends a job; what was finished stays. One that has ended stays as it is.

        Raises:
            NotFound: there is no such job, or no longer.

        >>> job = client.jobs.submit([{"question": "How many?", "responses": ["One.", "Two."]}])
        >>> client.jobs.cancel(job.id).state in ("cancelled", "done")
        True
        """
        return self._ask(cancel_exchange(job_id, self._timeout_s))


class AsyncJobs:
    """`Jobs` for asyncio: the same calls, awaited."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        ask: Callable[[Exchange[Any]], Coroutine[None, None, Any]],
        timeout_s: float,
    ) -> None:
        self._http = http
        self._ask = ask
        self._timeout_s = timeout_s

    async def submit(self, lines: Lines, **options: Unpack[ScoreOptions]) -> JobAccepted:
        """`Jobs.submit`, awaited; the lines are read in another thread."""
        sent = await asyncio.to_thread(JobLines, lines, options, self._timeout_s)
        with sent:
            return await self._ask(Submission(sent, self._timeout_s, awaited=True))

    async def submit_source(self, url: str) -> JobAccepted:
        """`Jobs.submit_source`, awaited."""
        return await self._ask(source_exchange(url, self._timeout_s))

    async def status(self, job_id: str) -> JobStatus:
        """`Jobs.status`, awaited."""
        return await self._ask(status_exchange(job_id, self._timeout_s))

    async def wait(
        self, job_id: str, *, progress: bool = False, timeout_s: float | None = None
    ) -> JobStatus:
        """`Jobs.wait`, awaited."""
        looking = Looking(timeout_s)
        with job_bar(progress) as look:
            while True:
                status = await self.status(job_id)
                look(status)
                pause = looking.settle(status)
                if pause is None:
                    return status
                await asyncio.sleep(pause.seconds)

    async def results(
        self, job_id: str, *, order: ResultOrder = "input", patience_s: float = 300.0
    ) -> AsyncGenerator[LineResult]:
        """`Jobs.results`, iterated with ``async for``."""
        reading = Reading(job_id, order, patience_s)
        while not reading.complete:
            try:
                async with self._http.stream(**reading.request()) as outcome:
                    if reading.begins(outcome):
                        async for chunk in outcome.aiter_bytes():
                            for result in reading.feed(chunk):
                                yield result
                    else:
                        await outcome.aread()
            except httpx.RequestError as cause:
                outcome = cause
            pause = reading.settle(outcome)
            if pause is not None:
                await asyncio.sleep(pause.seconds)

    async def cancel(self, job_id: str) -> JobStatus:
        """`Jobs.cancel`, awaited."""
        return await self._ask(cancel_exchange(job_id, self._timeout_s))
