"""``POST /score/batch``: NDJSON in, NDJSON out as each line is judged.

The upload is put on disk before the first line is judged: a client that sends
everything before it reads anything would otherwise wait for us while we wait
for it. After that a window of lines is in work at a time, so memory is that
window's, whatever the length of the batch.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from typing import IO

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from service.api.authentication import key_of
from service.api.errors import problem
from service.api.gateway import Gateway, gateway_of
from service.api.intake import uploaded
from service.api.judging_routes import score_answer
from service.api.openapi import takes
from service.api.parsing import parsed
from service.api.schemas import LineError, ScoreRequest
from service.errors import EngineUnavailable, PayloadTooLarge, ServiceError
from service.line_ids import line_id

router = APIRouter(tags=["judging"])

_log = structlog.get_logger(__name__)
_NDJSON = "application/x-ndjson"
_NAMED_BYTES = 2**20  # a wrong line that is longer is not read again for its id
_IN_MEMORY_BYTES = 4 * 2**20  # smaller uploads need no file


@router.post(
    "/score/batch",
    openapi_extra=takes(ScoreRequest, _NDJSON),
    response_class=StreamingResponse,
    responses={200: {"content": {_NDJSON: {}}}},
)
async def score_batch(request: Request) -> StreamingResponse:
    """Many comparisons: one `/score` body a line.

    Out comes, in the order in which they finish, a `/score` answer or
    `{"id", "line", "error"}` for each line that is not blank. A bad line costs that line alone.
    """
    gateway = gateway_of(request)
    gateway.admission.check()
    with ExitStack() as held:
        held.enter_context(gateway.bodies.upload())
        upload = await _received(request, gateway.settings.limits.batch_bytes)
        held.callback(upload.close)
        batch = _Batch(gateway, upload, request)
        return _BatchResponse(batch, held.pop_all())


async def _received(request: Request, most_bytes: int) -> IO[bytes]:
    upload: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115
    try:  # the response closes it, after this function has returned
        async for chunk in uploaded(request):
            if upload.tell() + len(chunk) > most_bytes:
                raise PayloadTooLarge(
                    f"the batch has more than the {most_bytes} bytes that are read"
                )
            if upload.tell() + len(chunk) > _IN_MEMORY_BYTES:
                await asyncio.to_thread(upload.write, chunk)
            else:
                upload.write(chunk)
    except BaseException:
        upload.close()
        raise
    upload.seek(0)
    return upload


class _BatchResponse(StreamingResponse):
    """Streams a batch's answers; however that ends, nothing of the batch goes on."""

    def __init__(self, batch: _Batch, held: ExitStack) -> None:
        self._held = held
        self._answers = batch.answers()
        super().__init__(self._answers, media_type=_NDJSON)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answers.aclose()
            self._held.close()


class _Batch:
    """One upload being judged."""

    def __init__(self, gateway: Gateway, upload: IO[bytes], request: Request) -> None:
        self._gateway = gateway
        self.upload = upload
        self._request = request
        self._request_id = request.scope["state"]["request_id"]
        self._key = key_of(request)
        self._most_line_bytes = gateway.settings.limits.body_bytes
        self._bytes = 0  # of the lines in work

    async def answers(self) -> AsyncGenerator[bytes]:
        """Encoded answers as lines finish; closing the generator cancels what is in work."""
        working: set[asyncio.Task[bytes]] = set()
        lines = self._lines()
        try:
            exhausted = False
            while working or not exhausted:
                while not exhausted and self._has_room(len(working)):
                    following = await asyncio.to_thread(next, lines, None)
                    if following is None:
                        exhausted = True
                    else:
                        working.add(asyncio.create_task(self._answer(*following)))
                if working:
                    done, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result() + b"\n"
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    def _has_room(self, working: int) -> bool:
        """By lines and by bytes: an upload of long lines is read few at a time."""
        most = self._gateway.settings.limits.batch_in_work
        return working < most and self._bytes <= self._most_line_bytes

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Line numbers from 1 and lines; None for one that is longer than is read."""
        number = 0
        while line := self.upload.readline(self._most_line_bytes + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if len(line) > self._most_line_bytes:
                while line and not line.endswith(b"\n"):
                    line = self.upload.readline(2**20)
                yield number, None
            elif line.strip():
                yield number, line

    async def _answer(self, number: int, line: bytes | None) -> bytes:
        held = len(line or b"")
        self._bytes += held
        try:
            return await self._answer_to(number, line)
        finally:
            self._bytes -= held

    async def _answer_to(self, number: int, line: bytes | None) -> bytes:
        began = time.monotonic()
        asked: ScoreRequest | None = None
        outcome: str
        answer: BaseModel
        try:
            if line is None:
                raise PayloadTooLarge(f"the line has more than {self._most_line_bytes} bytes")
            asked = _after_interactive(await parsed(self._gateway.pool, ScoreRequest, line))
            await self._gateway.quotas.spend(self._key)
            serving = await self._gateway.chosen(self._request, asked.question, asked.run_id)
            scored = await score_answer(serving, asked, began)
            answer, outcome = scored, scored.status
        except ServiceError as error:
            answer, outcome = self._error(number, _id_of(asked, line), error), error.code
        except Exception:  # one line's surprise must not end the others
            _log.exception("unforeseen error", line=number)
            error = EngineUnavailable("the service failed on this line")
            answer, outcome = self._error(number, _id_of(asked, line), error), error.code
        self._gateway.metrics.requests.labels("/score/batch line", outcome).inc()
        return answer.model_dump_json().encode()

    def _error(self, number: int, line_id: str | None, error: ServiceError) -> LineError:
        return LineError(id=line_id, line=number, error=problem(error, self._request_id))


def _after_interactive(asked: ScoreRequest) -> ScoreRequest:
    """Lines of a batch let single requests go first, unless they ask otherwise."""
    if "priority" in asked.model_fields_set:
        return asked
    return asked.model_copy(update={"priority": "batch"})


def _id_of(asked: ScoreRequest | None, line: bytes | None) -> str | None:
    """The line's own id, also where the rest of it is wrong."""
    if asked is not None:
        return asked.id
    if line is None or len(line) > _NAMED_BYTES:
        return None
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return line_id(raw.get("id")) if isinstance(raw, dict) else None
