"""One request and its answer, apart from how the bytes travel.

`Client` and `AsyncClient` share everything here; they differ in who waits.
"""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

import httpx

from proxy_grm_client import __version__
from proxy_grm_client.errors import BY_CODE, ProxyGrmError, ServiceUnreachable, UnexpectedAnswer

if TYPE_CHECKING:
    from pydantic import BaseModel

DEFAULT_URL = "http://127.0.0.1:8000"
Answer = TypeVar("Answer", bound="BaseModel")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
GRACE_S = 5.0  # the service keeps its own deadline; this is for the way there and back
_NEVER_ARRIVED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.WriteError,
    httpx.WriteTimeout,
)


@dataclass(frozen=True, slots=True)
class Pause:
    """Not yet: ask again after this."""

    seconds: float


@dataclass(slots=True)
class Backoff:
    """How long to wait before each further attempt: longer each time, never the same twice."""

    attempt: int = 0

    def pause_s(self, retry_after: str = "") -> float:
        """The next pause; at least what the service asks for."""
        self.attempt += 1
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self.attempt) * random.uniform(0.5, 1.0)
        return max(pause, float(retry_after)) if retry_after.isdigit() else pause


@dataclass(slots=True)
class Exchange(Generic[Answer]):
    """A request that is sent until it is answered, hopeless, or out of time.

    Args:
        path: of the service.
        body: JSON; None sends no body.
        answer: what a good answer is.
        timeout_s: seconds for all attempts together.
        method: of HTTP.
        repeatable: False where doing it twice does harm; then it is not sent again once it may
            have arrived.
    """

    path: str
    body: dict[str, Any] | None
    answer: type[Answer]
    timeout_s: float
    method: str = "POST"
    repeatable: bool = True
    backoff: Backoff = field(default_factory=Backoff)
    began: float = field(default_factory=time.monotonic)
    _key: str = field(init=False, default_factory=lambda: uuid4().hex)
    _sent: bytes | None = field(init=False, default=None)
    _lost: bool = field(init=False, default=False)

    @property
    def left_s(self) -> float:
        """What remains of the caller's time."""
        return max(0.001, self.began + self.timeout_s - time.monotonic())

    def request(self) -> dict[str, Any]:
        """What httpx is to send in the next attempt; the service keeps the deadline itself."""
        asked = {"method": self.method, "url": self.path, "timeout": self.left_s + GRACE_S}
        content = self.content()
        return asked if content is None else asked | {"content": content, "headers": self.headers()}

    def headers(self) -> dict[str, str]:
        """Of a request with a body; the key is that of every attempt."""
        return {"content-type": "application/json", "idempotency-key": self._key}

    def content(self) -> Any:
        """The body of the next attempt.

        After a refusal it says how much time is left. Where an answer was lost on the way, it
        stays as it was: the service gives the answer again to the same request alone.
        """
        if self.body is not None and not self._lost:
            body = self.body
            if self.backoff.attempt and "timeout_s" in body:
                body = body | {"timeout_s": self.left_s}
            self._sent = json.dumps(body, allow_nan=False).encode()
        return self._sent

    def settle(self, outcome: httpx.Response | httpx.RequestError) -> Answer | Pause:
        """The answer, or how long to wait before the next attempt.

        Raises:
            ProxyGrmError: another attempt is of no use, or there is no time for one.
        """
        if isinstance(outcome, httpx.Response) and outcome.status_code in (200, 202):
            return read_answer(self.answer, outcome.content)
        error, retry_after = failure(outcome)
        arrived = isinstance(outcome, httpx.RequestError) and not isinstance(
            outcome, _NEVER_ARRIVED
        )
        again = error.worth_retrying and (self.repeatable or not arrived)
        self._lost = self._lost or arrived
        pause_s = self.backoff.pause_s(retry_after)
        if not again or pause_s >= self.left_s:
            raise error
        return Pause(pause_s)


def read_answer(kind: type[Answer], content: bytes) -> Answer:
    """An answer of the service.

    Raises:
        UnexpectedAnswer: it is not one.
    """
    try:
        return kind.model_validate_json(content)
    except ValueError as cause:  # pydantic's
        raise UnexpectedAnswer("the answer is not one of this service's") from cause


def failure(outcome: httpx.Response | httpx.RequestError) -> tuple[ProxyGrmError, str]:
    """What went wrong, and the ``Retry-After`` that came with it."""
    if isinstance(outcome, httpx.RequestError):
        return _transport_error(outcome), ""
    try:
        error = read_problem(outcome.json())
    except ValueError:
        error = None
    unexpected = UnexpectedAnswer(f"HTTP {outcome.status_code} without a problem document")
    return error or unexpected, outcome.headers.get("retry-after", "")


def read_problem(document: Any) -> ProxyGrmError | None:
    """The error that a problem document tells of; None where it is no such document."""
    try:
        return BY_CODE[document["code"]](str(document["detail"]), document.get("request_id"))
    except (KeyError, TypeError, AttributeError):
        return None


def connection(
    url: str | None,
    api_key: str | None,
    *,
    release: str | None = None,
    may_change: bool = False,
) -> dict[str, Any]:
    """What an httpx client is made with: the address and the credentials.

    Args:
        url: absent, ``PROXY_GRM_URL`` or `DEFAULT_URL`.
        api_key: absent, ``PROXY_GRM_API_KEY`` or none.
        release: name or fingerprint of the one that is to judge.
        may_change: runs may go on with another release than they began with.

    Raises:
        ValueError: the address or the key can never be one.
    """
    key = checked_key(api_key or os.environ.get("PROXY_GRM_API_KEY") or "")
    headers = {"user-agent": f"proxy-grm-client/{__version__}"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    if release is not None:
        headers["x-proxy-grm-release"] = release
    if may_change:
        headers["x-proxy-grm-release-change"] = "allow"
    address = checked_url(url or os.environ.get("PROXY_GRM_URL") or DEFAULT_URL)
    return {"base_url": address, "headers": headers}


def checked_url(url: str) -> str:
    """A service's address.

    Raises:
        ValueError: it can never be one.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no address of a service; for example http://127.0.0.1:8000")
    return url


def checked_key(key: str) -> str:
    """An API key, without the line break that it may have in a file.

    Raises:
        ValueError: it can never be one; the key is not repeated.
    """
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the API key holds characters that no key has: look where it comes from")
    return key


def _transport_error(cause: httpx.RequestError) -> ProxyGrmError:
    """What the transport says, in this package's words."""
    kind = ServiceUnreachable if isinstance(cause, httpx.TransportError) else UnexpectedAnswer
    error = kind(f"the service gave no answer: {type(cause).__name__}")
    error.__cause__ = cause
    return error
