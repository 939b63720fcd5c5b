"""Who is asking? A key in ``Authorization: Bearer``, before a byte of the body is read."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

import structlog
from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.errors import document
from service.api.gateway import Gateway
from service.errors import InvalidRequest, ServiceError, Unauthenticated
from service.keys import ApiKey, Keyring
from service.tenancy import DEFAULT_TENANT, TENANT_HEADER, acting_for

OPEN = ("/livez", "/readyz", "/docs", "/openapi.json", "/")
"""For probes and for people who look: nothing is judged and nobody's data is shown there."""
PAGE_FILES = "/docs/files"
"""What the page at /docs is made of; as open as it."""
ADMIN = ("/metrics",)
_KEY = "api_key"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(f"{PAGE_FILES}/")


class Authentication:
    """Lets through whoever has a key, as its tenant; everybody where there are no keys.

    Args:
        keyring: None: there are no keys, for only this machine can ask.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring | None) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI call."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        with ExitStack() as stack:
            try:
                tenant = self._admit(scope, stack)
            except ServiceError as error:
                await document(scope["state"], error)(scope, receive, send)
                return
            stack.enter_context(acting_for(tenant))
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope, stack: ExitStack) -> str:
        """Whose request it is. Where there are no keys everybody is an admin."""
        headers = Headers(scope=scope)
        named = headers.get(TENANT_HEADER)
        if named is not None and not _TENANT.fullmatch(named):
            raise InvalidRequest(f"{TENANT_HEADER} is not the name of a tenant")
        key = None
        if self._keyring is not None:
            key = scope["state"][_KEY] = self._key(self._keyring, headers)
            structlog.contextvars.bind_contextvars(key=key.name)
            if key.role != "admin" and (named is not None or scope["path"] in ADMIN):
                raise Unauthenticated("this needs a key whose role is admin")
            gateway: Gateway = scope["app"].state.gateway
            stack.enter_context(gateway.quotas.request(key))
        return named or (key.tenant if key is not None else DEFAULT_TENANT)

    def _key(self, keyring: Keyring, headers: Headers) -> ApiKey:
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        key = keyring.holder(presented.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise Unauthenticated("send a key that this server knows: Authorization: Bearer …")
        return key


def key_of(request: Request) -> ApiKey | None:
    """The key that the request came with; None where there are no keys."""
    state: dict[str, Any] = request.scope["state"]
    return state.get(_KEY)
