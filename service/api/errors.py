"""Which error is which status, and how it looks: RFC 9457 problem documents."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from service.api.schemas import FieldError, Problem
from service.api.schemas.requests import NOT_BLANK, RUBRIC_ID, SHA256
from service.errors import (
    Abstained,
    ContextExceeded,
    DeadlineExceeded,
    Draining,
    EngineUnavailable,
    ImageRejected,
    InvalidRequest,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    ReleaseChanged,
    ServiceError,
    StoreUnavailable,
    Unauthenticated,
)

_log = structlog.get_logger(__name__)

STATUSES: dict[type[ServiceError], int] = {
    InvalidRequest: 422,
    ImageRejected: 422,
    ContextExceeded: 422,
    PayloadTooLarge: 413,
    NotFound: 404,
    ReleaseChanged: 409,
    Unauthenticated: 401,
    RateLimited: 429,
    Overloaded: 429,
    Draining: 503,
    EngineUnavailable: 503,
    StoreUnavailable: 503,
    DeadlineExceeded: 504,
    Abstained: 503,
}
_MOST_FIELD_ERRORS = 10  # a list of everything wrong can be thousands of times the request
_MOST_FIELD_CHARACTERS = 120


class ClientGone(Exception):
    """Nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with a body.

    Attributes:
        first: some of them; there is at least one.
        count: of all.
    """

    first: tuple[FieldError, ...]
    count: int


def faults_of(cause: ValidationError) -> Faults:
    """The faults that pydantic found, in our words."""
    found = cause.errors(include_url=False, include_input=False)
    first = tuple(
        FieldError(
            field=".".join(str(step) for step in error["loc"])[:_MOST_FIELD_CHARACTERS],
            problem=_in_our_words(error)[:_MOST_FIELD_CHARACTERS],
        )
        for error in found[:_MOST_FIELD_ERRORS]
    )
    return Faults(first, len(found))


class RequestInvalid(InvalidRequest):
    """A body that does not fit its schema; says where."""

    def __init__(self, faults: Faults) -> None:
        self.errors = faults.first
        first = faults.first[0]
        where = f"{first.field}: " if first.field else ""
        more = f" (and {faults.count - 1} more)" if faults.count > 1 else ""
        super().__init__(f"{where}{first.problem}{more}")


_WORDS = {
    "extra_forbidden": "this field is not known",
    "missing": "this is required",
    "model_type": "this is no JSON object",
    "too_long": "at most {max_length} are possible, these are {actual_length}",
    "too_short": "at least {min_length} are needed, these are {actual_length}",
}
_PATTERNS = {
    NOT_BLANK: "must not be blank",
    RUBRIC_ID: "an id looks like rub_ and 24 hex digits",
    SHA256: "a sha256 is 64 hex digits, in lower case",
}


def _in_our_words(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    words = _PATTERNS.get(context.get("pattern", "")) or _WORDS.get(error["type"])
    return error["msg"].removeprefix("Value error, ") if words is None else words.format(**context)


def problem(error: ServiceError, request_id: str) -> Problem:
    """The document for an error."""
    return Problem(
        type=f"urn:proxy-grm:error:{error.code}",
        title=error.code.replace("_", " ").capitalize(),
        status=status_of(error),
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        retry_after_s=error.retry_after_s,
        errors=error.errors if isinstance(error, RequestInvalid) else None,
    )


def status_of(error: ServiceError) -> int:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


def install_error_handlers(app: FastAPI) -> None:
    """Makes every failure of a route a problem document."""

    def known(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return _answer(request, error)

    def routing(request: Request, error: Exception) -> Response:
        """Unknown paths and wrong methods."""
        assert isinstance(error, HTTPException)
        detail = f"{request.method} is not answered at this path; /docs lists what is"
        response = _answer(request, NotFound(detail))
        if error.status_code == 405:
            response.headers.update(error.headers or {})
        return response

    def parameter(request: Request, error: Exception) -> Response:
        """Values in the query; bodies are parsed by the routes."""
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        detail = f"{first['loc'][-1]}: {first['msg']}"
        return _answer(request, InvalidRequest(detail[:_MOST_FIELD_CHARACTERS]))

    app.add_exception_handler(ServiceError, known)
    app.add_exception_handler(RequestValidationError, parameter)
    app.add_exception_handler(HTTPException, routing)


def unforeseen(state: dict[str, str], error: Exception) -> Response:
    """What is answered when a route fails in a way that nobody thought of; details stay here."""
    _log.error("unforeseen error", exc_info=error)
    return document(state, EngineUnavailable("the service failed on this request"))


def stopped(state: dict[str, str]) -> Response:
    """What is answered to a request that was in work when the process had to stop."""
    return document(state, Draining("this gateway stopped before it had an answer"))


def _answer(request: Request, error: ServiceError) -> Response:
    return document(request.scope["state"], error)


def document(state: dict[str, str], error: ServiceError) -> Response:
    """The answer that an error is; notes how the request ended."""
    state["outcome"] = error.code
    told = problem(error, state["request_id"])
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return Response(
        told.model_dump_json(exclude_none=True),
        status_code=told.status,
        headers=headers,
        media_type="application/problem+json",
    )
