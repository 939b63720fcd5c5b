"""Around every request: an id, a log line, a count.

Pure ASGI, so that streams and disconnects pass through.
"""

from __future__ import annotations

import asyncio
import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.bodies import HeldBody
from service.api.errors import ClientGone, stopped, unforeseen
from service.metrics import Metrics

_log = structlog.get_logger("service.access")
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
HELD_BODY = "held_body"  # in the request's state: memory that is given back with the answer
HEADERS = "headers"  # in the request's state: what its answer has besides
_SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_UNCOUNTED = {"/livez", "/readyz", "/metrics"}  # probes and scrapes would drown the rest


class RequestContext:
    """Gives each request an id, binds it to the logs, and counts how the request ended.

    Routes and error handlers put how it ended into ``scope["state"]["outcome"]``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        request_id = sent_id if _SAFE_ID.fullmatch(sent_id) else f"req_{uuid4().hex}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.update(_SAFE_HEADERS | state.get(HEADERS, {}))
            await send(message)

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            state["outcome"] = "cancelled"
        except asyncio.CancelledError:  # the process stops without waiting for this request
            if not status:
                await stopped(state)(scope, receive, send_with_id)
        except Exception as error:
            response = unforeseen(state, error)
            if status:  # half an answer is out already; the broken stream says the rest
                raise
            await response(scope, receive, send_with_id)
        finally:
            held: HeldBody | None = scope["state"].get(HELD_BODY)
            if held is not None:
                held.release()
            self._record(scope, state, status, time.monotonic() - began)

    def _record(self, scope: Scope, state: dict[str, str], status: int, seconds: float) -> None:
        route = scope.get("route")
        path = route.path if isinstance(route, Route) else "unmatched"
        if path in _UNCOUNTED:
            return
        outcome = state.get("outcome", "ok" if 200 <= status < 400 else "cancelled")
        self._metrics.requests.labels(path, outcome).inc()
        _log.info(
            "request",
            method=scope["method"],
            route=path,
            status=status or None,
            outcome=outcome,
            seconds=round(seconds, 4),
        )
