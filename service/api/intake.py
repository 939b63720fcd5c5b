"""Reading requests: bounded bodies, strict schemas, and noticing that the caller has gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from service.api.errors import ClientGone, RequestInvalid
from service.errors import NotFound, PayloadTooLarge

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The body, refused as soon as it is known to be too large.

    Raises:
        PayloadTooLarge: more than `most_bytes`, announced or sent.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        raise PayloadTooLarge(f"the body has {announced} bytes; at most {most_bytes} are read")
    body = bytearray()
    async for chunk in uploaded(request):
        body += chunk
        if len(body) > most_bytes:
            raise PayloadTooLarge(f"the body has more than the {most_bytes} bytes that are read")
    return bytes(body)


async def uploaded(request: Request) -> AsyncGenerator[bytes]:
    """The body as it arrives.

    Raises:
        ClientGone: the caller left in the middle of it.
    """
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise ClientGone from None


def parse(model: type[Model], body: bytes) -> Model:
    """A JSON text as a request.

    Raises:
        RequestInvalid: it is no JSON or does not fit the schema.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestInvalid(error) from None


def refuse_evaluators(names: tuple[str, ...]) -> None:
    """None can be asked beside a judgement or a rubric yet; `/verify` asks the proxy.

    Raises:
        NotFound: any was named.
    """
    if names:
        raise NotFound("no evaluator of this name is configured on this server")


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
