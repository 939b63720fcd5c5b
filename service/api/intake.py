"""Reading requests: bounded bodies, strict schemas, and noticing that the caller has gone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.api.authentication import key_of
from service.api.errors import ClientGone
from service.api.gateway import gateway_of
from service.api.middleware import HEADERS, HELD_BODY
from service.api.parsing import Model, read_by
from service.errors import DeadlineExceeded, PayloadTooLarge

Result = TypeVar("Result")

BODY_DIGEST = "body_digest"
"""In the state of a request that has an ``Idempotency-Key``."""

_WHOLE = "whole"  # in the state of a request: when its body was


async def received(request: Request, model: type[Model]) -> Model:
    """The request that a body is.

    Nothing is read when there is no chance of a place in the queue.

    Raises:
        RequestInvalid: it is no JSON or does not fit the schema.
        RateLimited, Overloaded, Draining: before it is read.
        PayloadTooLarge, DeadlineExceeded: while it is read.
    """
    return await received_by(request, model.model_validate_json)


async def received_by(request: Request, reader: Callable[[bytes], Result]) -> Result:
    """What a reader makes of a body; see `read_by`.

    Raises:
        RequestInvalid, InvalidRequest, RateLimited, Overloaded, Draining, PayloadTooLarge,
            DeadlineExceeded
    """
    gateway = gateway_of(request)
    await gateway.quotas.spend(key_of(request))
    gateway.admission.check_room()
    return await read(request, reader, gateway.settings.limits.body_bytes)


async def read(request: Request, reader: Callable[[bytes], Result], most_bytes: int) -> Result:
    """What a reader makes of a body, where nothing is judged before it is answered.

    Raises:
        RequestInvalid, InvalidRequest: as the reader says.
        Overloaded, PayloadTooLarge, DeadlineExceeded: while it is read.
    """
    gateway = gateway_of(request)
    limits = gateway.settings.limits
    held = request.scope["state"][HELD_BODY] = gateway.bodies.hold()
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async with aclosing(_bounded(request, most_bytes)) as pieces:
                async for piece in pieces:
                    held.grow(len(piece))
                    body += piece
    except TimeoutError:
        raise _late(request, f"the body did not come within {limits.body_s:g} s") from None
    request.scope["state"][_WHOLE] = time.monotonic()
    text = bytes(body).removeprefix(BOM_UTF8)
    if "idempotency-key" in request.headers:
        digest = await asyncio.to_thread(hashlib.sha256, text)
        request.scope["state"][BODY_DIGEST] = digest.hexdigest()
    return await read_by(gateway.pool, reader, text)


def body_came(request: Request) -> float:
    """When a body that was read was whole, by the monotonic clock: a caller's time begins there."""
    return request.scope["state"][_WHOLE]


async def _bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes]:
    """The body as it arrives, refused as soon as it is known to be too large."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        raise PayloadTooLarge(f"the body has {announced} bytes; at most {most_bytes} are read")
    count = 0
    async with aclosing(uploaded(request)) as pieces:
        async for piece in pieces:
            count += len(piece)
            if count > most_bytes:
                raise PayloadTooLarge(
                    f"the body has more than the {most_bytes} bytes that are read"
                )
            yield piece


async def uploaded(request: Request) -> AsyncGenerator[bytes]:
    """The body as it arrives.

    Raises:
        ClientGone: the caller left in the middle of it.
        DeadlineExceeded: the next piece did not come, or all of them come too slowly.
    """
    limits = gateway_of(request).settings.limits
    pieces = aiter(request.stream())
    now = asyncio.get_running_loop().time
    latest = now() + limits.body_s
    try:
        while True:
            async with asyncio.timeout_at(min(latest, now() + limits.body_s)):
                piece = await anext(pieces, None)
            if piece is None:
                return
            latest += len(piece) / limits.upload_bytes_per_s
            yield piece
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise _late(
            request,
            f"the upload paused for more than {limits.body_s:g} s, or came with less than "
            f"{limits.upload_bytes_per_s} bytes a second",
        ) from None


def _late(request: Request, detail: str) -> DeadlineExceeded:
    """What such a caller is told, and nothing more is read of what it may still send."""
    request.scope["state"][HEADERS] = {"connection": "close"}
    return DeadlineExceeded(detail)


async def unless_gone(request: Request, work: Coroutine[None, None, Result]) -> Result:
    """Does the work, or cancels it as soon as the caller disconnects.

    Raises:
        ClientGone: the caller disconnected first.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        watching.cancel()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await working


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
