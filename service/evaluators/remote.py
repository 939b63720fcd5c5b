"""Asking somebody's HTTP server for a JSON answer, whatever it may send."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Mapping
from typing import Annotated, Any

import httpx
from pydantic import SecretStr, StringConstraints

from models.comparison import JudgeImage
from service.errors import Abstained, ContextExceeded, EngineUnavailable

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+\S*$")]

_MOST_BYTES = 4 * 2**20
_TOO_LONG = (b"context_length_exceeded", b"context_exceeded", b"maximum context length")
"""How OpenAI, this service and vLLM say so."""


class ServerAbstained(Exception):
    """A server of this service answered that there is no verdict: it works, and has none."""


class BadAnswer(Exception):
    """A server answered, and not with what was asked for; asking again is of no use."""


class JsonServer:
    """Posts JSON to one address.

    Args:
        url: in whole.
        api_key: sent as a bearer token.
        transport: used instead of the network.
    """

    def __init__(
        self,
        url: str,
        api_key: SecretStr | None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = (
            {} if api_key is None else {"authorization": f"Bearer {api_key.get_secret_value()}"}
        )
        self._url = url
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=None,  # the guard's
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            transport=transport,
        )

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Its answer, an object; what is in there is for the caller to check.

        Raises:
            EngineUnavailable: it cannot be reached, or says that it cannot answer now.
            ServerAbstained: it says that there is no verdict.
            ContextExceeded: it says that this is too long.
            BadAnswer: anything else that is no JSON object.
        """
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                said = await _read(response)
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise EngineUnavailable(f"the evaluator's server: {type(error).__name__}") from error
        if response.status_code == 503 and _code(said) == Abstained.code:
            raise ServerAbstained
        if response.status_code == 429 or response.status_code >= 500:
            raise EngineUnavailable(f"the evaluator's server answered {response.status_code}")
        if response.status_code != 200:
            if any(hint in said for hint in _TOO_LONG):
                raise ContextExceeded("the comparison is too long for the evaluator's server")
            raise BadAnswer(f"status {response.status_code}: {said[:200]!r}")
        return _object(said)

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()


async def data_uri(image: JudgeImage) -> str:
    """A picture as it travels in JSON, without loss."""

    def encoded() -> str:
        png = io.BytesIO()
        image.pixels.save(png, "PNG", compress_level=1)
        return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()

    return await asyncio.to_thread(encoded)


async def _read(response: httpx.Response) -> bytes:
    said = bytearray()
    async for chunk in response.aiter_bytes():
        said += chunk
        if len(said) > _MOST_BYTES:
            raise BadAnswer(f"an answer of more than {_MOST_BYTES} bytes")
    return bytes(said)


def _code(said: bytes) -> Any:
    """That of a problem document, if it is one."""
    try:
        return _object(said).get("code")
    except BadAnswer:
        return None


def _object(said: bytes) -> dict[str, Any]:
    try:
        found = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"no JSON: {said[:200]!r}") from error
    if not isinstance(found, dict):
        raise BadAnswer(f"JSON, but no object: {said[:200]!r}")
    return found
