"""What trainers already send: requests and answers of public clients, on by name.

One file a dialect. Where two share a path, each says which requests are its own.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import RootModel

from service.api.authentication import key_of
from service.api.dialects.contract import Dialect
from service.api.gateway import RELEASE_HEADER, gateway_of
from service.api.intake import received_by, unless_gone
from service.process_pool import Refused
from service.settings import DialectName

_PLACES: Mapping[DialectName, str] = {
    "openrlhf": "service.api.dialects.openrlhf:OpenRlhf",
    "proxy_grm": "service.api.dialects.proxy_grm:ProxyGrm",
    "r1_reward": "service.api.dialects.r1_reward:R1Reward",
}


_PURPOSE_HEADER = "x-proxy-grm-purpose"
"""``demo``: bare numbers have no other place to say that they are worth nothing."""


class _Document(RootModel[dict[str, Any]]):
    """A request of a dialect that is not known yet."""


def install_dialects(app: FastAPI, names: Sequence[DialectName]) -> None:
    """Adds the paths of the dialects that are named."""
    spoken = sorted((load_dialect(name) for name in names), key=lambda dialect: dialect.path)
    for path, sharing in groupby(spoken, key=lambda dialect: dialect.path):
        _add_route(app, path, tuple(sharing))


def load_dialect(name: DialectName) -> Dialect[Any]:
    """A dialect by its name; imported only now."""
    module, _, kind = _PLACES[name].partition(":")
    return getattr(importlib.import_module(module), kind)()


def _add_route(app: FastAPI, path: str, dialects: Sequence[Dialect[Any]]) -> None:
    reader = partial(_read, dialects)

    async def answer(request: Request) -> Response:
        gateway = gateway_of(request)
        dialect, asked = await received_by(request, reader)
        await gateway.quotas.spend_rest(key_of(request), dialect.judgements(asked))
        found = await unless_gone(request, dialect.answer(gateway, asked))
        request.scope["state"]["outcome"] = "ok"
        release = gateway.release.config
        return Response(
            json.dumps(found),
            media_type="application/json",
            headers={RELEASE_HEADER: release.name, _PURPOSE_HEADER: release.purpose},
        )

    names = " and ".join(type(dialect).__name__ for dialect in dialects)
    app.add_api_route(
        path, answer, methods=["POST"], tags=["dialects"], response_model=None, summary=names
    )


def _read(dialects: Sequence[Dialect[Any]], text: bytes) -> tuple[Dialect[Any], Any]:
    """Whose request a body is, and what it asks."""
    body = _Document.model_validate_json(text).root
    dialect = next((one for one in dialects if one.speaks(body)), None)
    if dialect is None:
        raise Refused("this is a request of no dialect that is switched on here")
    return dialect, dialect.read(body)
