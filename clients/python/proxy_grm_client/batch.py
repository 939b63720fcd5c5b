"""Many comparisons: what is sent, what has come back, and what has to be sent again.

`Client.batch` and `AsyncClient.batch` share everything here; they differ in who waits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx

import proxy_grm_client as grm
from proxy_grm_client.errors import ProxyGrmError, ServiceUnreachable, UnexpectedAnswer
from proxy_grm_client.exchange import GRACE_S, Backoff, Pause, failure, read_answer, read_problem
from proxy_grm_client.lines import Lines, encoded, own_id
from proxy_grm_client.progress import progress_bar

if TYPE_CHECKING:
    from proxy_grm_client.answers import FailedLine, LineResult

_MOST_LINES, _MOST_BYTES = 2_000, 32 * 2**20
"""One upload. The service judges nothing of it before it has all."""


@dataclass(slots=True)
class _Pending:
    """A line that has no result yet.

    Attributes:
        blamed: why it was refused while the service judged others after it: it may be the line.
    """

    number: int
    own_id: str | None
    encoded: bytes
    blamed: ProxyGrmError | None = None


@dataclass(slots=True)
class Batch:
    """A batch on its way: uploads until each line has a result.

    Args:
        lines: comparisons; read as they are needed.
        options: of every line that does not say otherwise.
        timeout_s: of one line, on the service.
        patience_s: without any result, before what is left is given up.
    """

    lines: Lines
    options: Mapping[str, Any]
    timeout_s: float
    patience_s: float
    _source: Iterator[tuple[int, Any]] = field(init=False)
    _pending: dict[str, _Pending] = field(init=False, default_factory=dict[str, _Pending])
    _sent: list[str] = field(init=False, default_factory=list[str])
    _partial: bytes = field(init=False, default=b"")
    _backoff: Backoff = field(init=False, default_factory=Backoff)
    _progress: float = field(init=False, default_factory=time.monotonic)
    _refused: dict[str, ProxyGrmError] = field(init=False, default_factory=dict[str, ProxyGrmError])
    _given_up: list[FailedLine] = field(init=False, default_factory=list["FailedLine"])

    def __post_init__(self) -> None:
        self._source = enumerate(self.lines, 1)

    def progress_bar(self, shown: bool) -> AbstractContextManager[Callable[[LineResult], None]]:
        """Counts results; see `proxy_grm_client.progress`."""
        total = len(self.lines) if isinstance(self.lines, Sized) else None
        return progress_bar(total, shown)

    def refill(self) -> list[FailedLine]:
        """Takes lines until an upload is full; those that get no judgement are returned."""
        failed, self._given_up = self._given_up, []
        size = sum(len(line.encoded) for line in self._pending.values())
        while len(self._pending) < _MOST_LINES and size < _MOST_BYTES:
            number, line = next(self._source, (0, None))
            if number == 0:
                break
            try:
                size += self._add(number, line)
            except ProxyGrmError as error:
                failed.append(grm.FailedLine(own_id(line), number, error))
        return failed

    @property
    def finished(self) -> bool:
        """Whether each line has a result."""
        return not self._pending

    def upload(self) -> dict[str, Any]:
        """The next request: all lines without a result."""
        self._sent = list(self._pending)
        self._partial, self._refused = b"", {}
        return {
            "method": "POST",
            "url": "/score/batch",
            "headers": {"content-type": "application/x-ndjson"},
            "content": b"".join(line.encoded for line in self._pending.values()),
            "timeout": self.timeout_s + GRACE_S,  # the longest silence: one line's time
        }

    def feed(self, chunk: bytes) -> Iterator[LineResult]:
        """Results in what has arrived.

        Lines end at a line feed alone: what a judge writes may hold any other separator.
        """
        *whole, self._partial = (self._partial + chunk).split(b"\n")
        for text in whole:
            result = self._read(text)
            if result is not None:
                self._note_progress()
                yield result

    def settle(self, outcome: httpx.Response | httpx.RequestError) -> Pause | None:
        """After an upload's answers: None to go on, or how long to wait before it.

        Raises:
            ProxyGrmError: another attempt is of no use, or nothing has come for too long.
        """
        retry_after = ""
        if isinstance(outcome, httpx.Response) and outcome.status_code == 200:
            if not any(wire_id in self._pending for wire_id in self._sent):
                return None
            broken = ServiceUnreachable("the service broke off its answer")
            error = next(iter(self._refused.values()), broken)
        else:
            error, retry_after = failure(outcome)
        pause_s = self._backoff.pause_s(retry_after)
        in_time = pause_s < self._progress + self.patience_s - time.monotonic()
        if error.worth_retrying and in_time:
            return Pause(pause_s)
        if error.worth_retrying and all(line.blamed for line in self._pending.values()):
            self._give_up()
            return None
        raise error

    def _note_progress(self) -> None:
        self._progress, self._backoff = time.monotonic(), Backoff()
        for wire_id, error in self._refused.items():
            self._pending[wire_id].blamed = error
        self._refused = {}

    def _give_up(self) -> None:
        for line in self._pending.values():
            if line.blamed is not None:
                self._given_up.append(grm.FailedLine(line.own_id, line.number, line.blamed))
        self._pending = {}

    def _add(self, number: int, line: Any) -> int:
        """Encodes a line; its id on the wire is its own, or one that is like no other's."""
        named = own_id(line)
        wire_id = named if named and named not in self._pending else f"line_{uuid4().hex}"
        text = encoded(line, {**self.options, "timeout_s": self.timeout_s}, wire_id)
        self._pending[wire_id] = _Pending(number, named, text)
        return len(text)

    def _read(self, text: bytes) -> LineResult | None:
        try:
            answer = json.loads(text)
        except ValueError:
            return None  # the end of a broken stream; what is missing is sent again
        if not isinstance(answer, dict) or "error" not in answer:
            judgement = read_answer(grm.Judgement, text)
            line = self._pending.pop(judgement.id, None)
            if line is None:
                return None
            own_id = line.own_id or judgement.id
            return judgement.model_copy(update={"id": own_id})
        return self._read_error(answer)

    def _read_error(self, answer: dict[str, Any]) -> FailedLine | None:
        error = read_problem(answer["error"])
        place = answer.get("line")
        if error is None or not isinstance(place, int) or not 0 < place <= len(self._sent):
            raise UnexpectedAnswer("an error that is not one of this service's")
        wire_id = self._sent[place - 1]
        line = self._pending.get(wire_id)
        if line is None:
            return None
        if error.worth_retrying:
            self._refused[wire_id] = error
            return None
        del self._pending[wire_id]
        return grm.FailedLine(line.own_id, line.number, error)
