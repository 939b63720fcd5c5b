"""Sending an answer; and the same one again to a request that comes again.

With an ``Idempotency-Key`` header the answer to a request is kept for its tenant. The same request
under the same key gets it again, also while the first is still in work; another request under it is
refused, and so is one that names another release. Errors are not kept: they are to be tried again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Protocol

from fastapi import Request, Response
from pydantic import TypeAdapter, ValidationError

from service.api.gateway import RELEASE_HEADER, Serving, gateway_of
from service.api.intake import BODY_DIGEST, unless_gone
from service.api.schemas import TimingOut
from service.errors import InvalidRequest

_HEADER = "idempotency-key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_STAGES = ("queue", "image", "engine", "total")


class Answer(Protocol):
    """What every answer about judging has."""

    @property
    def status(self) -> str:
        """``ok`` or ``abstain``."""
        ...

    @property
    def timing(self) -> TimingOut:
        """Seconds in each stage."""
        ...

    def model_dump_json(self) -> str:
        """On the wire."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer, and of which request and of which release it is."""

    asked: str
    release: str
    status: str
    text: str
    spent: str


_KEPT = TypeAdapter(_Kept)


async def answered(
    request: Request, serving: Serving, work: Callable[[], Coroutine[None, None, Answer]]
) -> Response:
    """The answer that `work` gives, or gave before under the same ``Idempotency-Key``.

    Args:
        request: whose answer it is.
        serving: what `work` asks. Who names a release is not given another's answer; who names none
            gets the first answer again, whatever is served since.
        work: makes it.

    Raises:
        InvalidRequest: the key is none, or was used for another request, or with another release
            than the one that is named.
        ClientGone: the caller left.
    """
    key = request.headers.get(_HEADER)
    if key is None:
        answer = await unless_gone(request, work())
        return _response(request, answer.status, answer.model_dump_json(), _spent(answer.timing))
    if not _KEY.fullmatch(key):
        raise InvalidRequest("Idempotency-Key is not 1 to 255 visible ASCII characters")
    return await unless_gone(request, _once(request, key, serving.release.fingerprint, work))


async def _once(
    request: Request, key: str, release: str, work: Callable[[], Coroutine[None, None, Answer]]
) -> Response:
    gateway = gateway_of(request)
    asked = f"{request.url.path} {request.scope['state'][BODY_DIGEST]}"
    name = hashlib.sha256(key.encode()).hexdigest()

    async def kept() -> _Kept | None:
        found = await gateway.store.answer(name)
        try:
            return _KEPT.validate_python(found) if found is not None else None
        except ValidationError:  # written by another version of this service
            return None

    async def make() -> _Kept:
        answer = await work()
        if (other := await kept()) is not None:  # another request was quicker under this key
            return other
        text, spent = answer.model_dump_json(), _spent(answer.timing)
        made = _Kept(asked, release, answer.status, text, spent)
        await gateway.store.keep_answer(name, asdict(made))
        return made

    found = await kept()
    made = False
    if found is None:
        # Only the same request is waited for: another one has its own time, and its own errors.
        flight = hashlib.sha256(f"{name} {release} {asked}".encode()).hexdigest()
        found, made = await gateway.flights.run(f"answer:{flight}", kept, make)
    if found.asked != asked:
        raise InvalidRequest("this Idempotency-Key was used for another request")
    if found.release != release and RELEASE_HEADER in request.headers:
        raise InvalidRequest("this Idempotency-Key was used with another release")
    response = _response(request, found.status, found.text, found.spent)
    if not made:
        response.headers["idempotent-replayed"] = "true"
    return response


def _response(request: Request, status: str, text: str, spent: str) -> Response:
    request.scope["state"]["outcome"] = status
    return Response(text, media_type="application/json", headers={"server-timing": spent})


def _spent(timing: TimingOut) -> str:
    return ", ".join(f"{name};dur={getattr(timing, f'{name}_s') * 1000:.1f}" for name in _STAGES)
