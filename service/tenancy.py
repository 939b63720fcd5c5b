"""For whom this process is working right now.

It travels with the context, like the request's id on log lines, so that nothing on the way to a
cache or a job can forget to pass it on: what is kept for one tenant is found by that tenant alone.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

DEFAULT_TENANT = "default"
"""Whose everything is where there are no keys."""

TENANT_HEADER = "x-proxy-grm-tenant"
"""With it an admin's key acts for another tenant, as workers do."""

_tenant: ContextVar[str] = ContextVar("tenant", default=DEFAULT_TENANT)


def current_tenant() -> str:
    """Whose request this is."""
    return _tenant.get()


@contextmanager
def acting_for(tenant: str) -> Generator[None]:
    """Everything begun inside is this tenant's."""
    before = _tenant.set(tenant)
    try:
        yield
    finally:
        _tenant.reset(before)
