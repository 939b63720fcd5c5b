"""A job's lines on their way to the service, and its results on their way back.

`Jobs` and `AsyncJobs` share everything here; they differ in who waits.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Literal, Self

import httpx

import proxy_grm_client as grm
from proxy_grm_client.calls import job_path
from proxy_grm_client.errors import DeadlineExceeded, ProxyGrmError, UnexpectedAnswer
from proxy_grm_client.exchange import Backoff, Exchange, Pause, failure, read_answer, read_problem
from proxy_grm_client.lines import Lines, encoded, own_id

if TYPE_CHECKING:
    from proxy_grm_client.answers import JobStatus, LineResult

ResultOrder = Literal["input", "completed"]

_IN_MEMORY_BYTES, _PIECE_BYTES = 32 * 2**20, 2**18
_SILENCE_S = 60.0  # of a job's results: then the connection may be dead, and a new one is made
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.2, 5.0


class JobLines:
    """All lines of a job as they are sent; those that take more room than memory has, on disk.

    Raises:
        ProxyGrmError: a line that can never be judged; the message says which.
    """

    def __init__(self, lines: Lines, options: Mapping[str, Any], timeout_s: float) -> None:
        options = {"timeout_s": timeout_s, **options}
        self._file = SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by `close`
        for number, line in enumerate(lines, start=1):
            name = own_id(line) or f"line-{number}"
            try:
                self._file.write(encoded(line, options, name))
            except ProxyGrmError as error:
                self.close()
                raise type(error)(f"{name}: {error.detail}") from error
        self.bytes = self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the room back."""
        self._file.close()

    def pieces(self) -> Iterator[bytes]:
        """All of it, from the beginning."""
        self._file.seek(0)
        while piece := self._file.read(_PIECE_BYTES):
            yield piece

    async def awaited_pieces(self) -> AsyncIterator[bytes]:
        """`pieces` for asyncio."""
        for piece in self.pieces():
            yield piece


class Submission(Exchange["grm.JobAccepted"]):
    """``POST /jobs`` with lines. Not sent again once it may have arrived: it would be two jobs."""

    def __init__(self, lines: JobLines, timeout_s: float, awaited: bool) -> None:
        super().__init__("/jobs", None, grm.JobAccepted, timeout_s, repeatable=False)
        self._lines = lines
        self._awaited = awaited

    def headers(self) -> dict[str, str]:
        """What the body is, and how long: it is streamed."""
        return {"content-type": "application/x-ndjson", "content-length": str(self._lines.bytes)}

    def content(self) -> Any:
        """The lines, from the first."""
        return self._lines.awaited_pieces() if self._awaited else self._lines.pieces()


@dataclass(slots=True)
class Looking:
    """How long to wait before the next look at a job.

    Args:
        timeout_s: until nobody looks any more; None looks for ever.
    """

    timeout_s: float | None
    _began: float = field(default_factory=time.monotonic)
    _pause_s: float = _SHORTEST_LOOK_S

    def settle(self, status: JobStatus) -> Pause | None:
        """None once the job has ended.

        Raises:
            DeadlineExceeded: it goes on, and there is no time left. The job itself is not touched.
        """
        if status.ended:
            return None
        pause_s, self._pause_s = self._pause_s, min(1.5 * self._pause_s, _LONGEST_LOOK_S)
        if self.timeout_s is not None and time.monotonic() + pause_s > self._began + self.timeout_s:
            raise DeadlineExceeded(f"job {status.id} is still {status.state}")
        return Pause(pause_s)


@dataclass(slots=True)
class Reading:
    """A job's results on their way: asked for until they are complete, each given once.

    Args:
        job_id: of the job.
        order: ``input``, or ``completed``.
        patience_s: without an answer, before it is given up.
    """

    job_id: str
    order: ResultOrder
    patience_s: float
    complete: bool = field(init=False, default=False)
    _given: set[int] = field(init=False, default_factory=set[int])
    _partial: bytes = field(init=False, default=b"")
    _backoff: Backoff = field(init=False, default_factory=Backoff)
    _heard: float = field(init=False, default_factory=time.monotonic)

    def request(self) -> dict[str, Any]:
        """The next request, for all results: the service has no other."""
        self._partial = b""
        return {
            "method": "GET",
            "url": f"{job_path(self.job_id)}/results",
            "params": {"order": self.order},
            "timeout": _SILENCE_S,
        }

    def begins(self, answer: httpx.Response) -> bool:
        """Whether results follow, however slowly."""
        if answer.status_code == 200:
            self._heard, self._backoff = time.monotonic(), Backoff()
        return answer.status_code == 200

    def feed(self, chunk: bytes) -> Iterator[LineResult]:
        """Results in what has arrived that were not given before."""
        *whole, self._partial = (self._partial + chunk).split(b"\n")
        for text in whole:
            place, result = _read(text)
            if place not in self._given:
                self._given.add(place)
                yield result

    def settle(self, outcome: httpx.Response | httpx.RequestError) -> Pause | None:
        """After an answer: None to go on, or how long to wait before asking again.

        Raises:
            ProxyGrmError: there is no such job, or no answer has come for too long.
        """
        if isinstance(outcome, httpx.Response) and outcome.status_code == 200:
            self.complete = True
            return None
        error, retry_after = failure(outcome)
        pause_s = self._backoff.pause_s(retry_after)
        if not error.worth_retrying or pause_s > self._heard + self.patience_s - time.monotonic():
            raise error
        return Pause(pause_s)


def _read(text: bytes) -> tuple[int, LineResult]:
    """A line of results, and which line of the job it is about."""
    try:
        answer = json.loads(text)
        place = answer["line"]
        if "error" not in answer:
            return place, read_answer(grm.Judgement, text)
        error = read_problem(answer["error"])
        if error is not None:
            return place, grm.FailedLine(answer.get("id"), place, error)
    except (ValueError, TypeError, KeyError) as cause:
        raise UnexpectedAnswer("a result that is not one of this service's") from cause
    raise UnexpectedAnswer("an error that is not one of this service's")
