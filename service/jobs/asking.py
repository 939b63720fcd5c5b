"""One line to a gateway, and what its answer means for the job."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from service.errors import EngineUnavailable, PayloadTooLarge, ServiceError
from service.jobs.chunks import Line
from service.jobs.leases import Result
from service.line_ids import line_id
from service.settings import WorkerSettings
from service.tenancy import TENANT_HEADER, current_tenant

_log = structlog.get_logger(__name__)

_CONNECT_S = 5.0
_CONNECTIONS = 4  # of a client, about
_DEFAULT_TIMEOUT_S = 120.0  # what the gateway gives a request that names none
_GRACE_S = 30.0
_BUSY = {"overloaded", "rate_limited", "draining"}
_LINE_FAILED = {"engine_unavailable", "deadline_exceeded", "store_unavailable"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """No answer for the line yet.

    Attributes:
        retry_after_s: when the gateway wants to be asked again.
        lines_own: the line may be the reason: it was being worked on.
        result: what the line gets when it is not tried again.
    """

    retry_after_s: float
    lines_own: bool
    result: Result


class Asking:
    """Sends lines to a gateway, as any client would."""

    def __init__(
        self, settings: WorkerSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        key = settings.api_key
        tls = httpx.create_ssl_context()  # one for all: each takes its time to read
        # For each request a client looks at all of its connections: many clients with few
        # connections take less of this process's time than one with many.
        self._clients = [
            httpx.AsyncClient(
                base_url=settings.gateway_url,
                headers={}
                if key is None
                else {"authorization": f"Bearer {key.get_secret_value()}"},
                transport=transport,
                verify=tls,
                limits=httpx.Limits(max_connections=None),
            )
            for _ in range(math.ceil(settings.in_flight / _CONNECTIONS))
        ]
        self._turns = itertools.cycle(self._clients)

    async def close(self) -> None:
        """Closes its connections."""
        for client in self._clients:
            await client.aclose()

    async def ready(self) -> bool:
        """Whether the gateway would make a judgement now."""
        try:
            answer = await self._clients[0].get("/readyz", timeout=_CONNECT_S)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    async def ask(self, job_id: str, line: Line) -> Result | Refusal:
        """The line's result, or why there is none yet. Cancelling it ends the work on the line."""
        asked = _Asked(job_id, line)
        if not line.body:
            return asked.failed(PayloadTooLarge("the line has more bytes than are read"))
        try:
            answer = await next(self._turns).post(
                "/score",
                content=asked.content,
                headers={
                    "content-type": "application/json",
                    "x-request-id": asked.request_id,
                    TENANT_HEADER: current_tenant(),
                },
                timeout=httpx.Timeout(asked.timeout_s + _GRACE_S, connect=_CONNECT_S, pool=None),
            )
        except httpx.TransportError as cause:
            # Before it was connected, the gateway has not seen the line.
            unseen = isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout)
            lost = EngineUnavailable("the gateway ended in the middle of this line, repeatedly")
            return Refusal(0.0, not unseen, asked.failed(lost))
        return asked.answered(answer)


class _Asked:
    """A line on its way."""

    def __init__(self, job_id: str, line: Line) -> None:
        self._line = line
        self._id: str | None = None
        self.request_id = f"{job_id}:{line.number}"
        self.content = line.body
        self.timeout_s = _DEFAULT_TIMEOUT_S
        body = _object(line.body)
        if body is not None:  # what is no object, the gateway refuses better than we could
            self._note(body)
            self.content = json.dumps({"priority": "batch"} | body).encode()

    def _note(self, body: dict[str, Any]) -> None:
        self._id, timeout_s = line_id(body.get("id")), body.get("timeout_s")
        if isinstance(timeout_s, int | float) and 0 < timeout_s <= 3600:
            self.timeout_s = float(timeout_s)

    def answered(self, answer: httpx.Response) -> Result | Refusal:
        """What the gateway's answer means."""
        body = _object(answer.content)
        if answer.status_code == 200 and body is not None and body.get("status") is not None:
            outcome = "ok" if body["status"] == "ok" else "abstain"
            return Result(outcome, b'{"line":%d,%b' % (self._line.number, answer.content[1:]))
        code = body.get("code") if body is not None else None
        if body is None or not isinstance(code, str) or answer.status_code in (401, 403):
            _log.warning("this is not the gateway, or it lets nobody in", status=answer.status_code)
            return Refusal(0.0, False, self._failed({}))
        retry_after = answer.headers.get("retry-after", "")
        retry_after_s = float(retry_after) if retry_after.isdigit() else 0.0
        result = self._failed(body)
        if code in _BUSY:
            return Refusal(retry_after_s, False, result)
        return Refusal(retry_after_s, True, result) if code in _LINE_FAILED else result

    def failed(self, error: ServiceError) -> Result:
        """An error that did not come from the gateway."""
        status = 413 if isinstance(error, PayloadTooLarge) else 503
        problem = {
            "type": f"urn:proxy-grm:error:{error.code}",
            "title": error.code.replace("_", " ").capitalize(),
            "status": status,
            "detail": error.detail,
            "code": error.code,
            "request_id": self.request_id,
        }
        return self._failed(problem)

    def _failed(self, problem: dict[str, Any]) -> Result:
        found = {"line": self._line.number, "id": self._id, "error": problem}
        return Result("error", json.dumps(found).encode())


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
