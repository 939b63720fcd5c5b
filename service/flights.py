"""The same work asked for at the same time, here or in another gateway, is done once.

Inside one process by waiting for the task that does it; between gateways by a claim in Redis that
whoever does the work holds and renews. A claim that is lost, and a Redis that does not answer, cost
the work being done twice, never an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import uuid4

from service.single_flight import SingleFlight
from service.store import Store
from service.tenancy import current_tenant

Result = TypeVar("Result")

LEASE_S = 15
"""Until the work of a gateway that died is done by one that waited for it."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25


class Flights:
    """Work in progress, by what it is and whose."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._here = SingleFlight()

    async def run(
        self,
        key: str,
        kept: Callable[[], Awaitable[Result | None]],
        make: Callable[[], Coroutine[None, None, Result]],
    ) -> tuple[Result, bool]:
        """What is kept under the key, or what `make` makes; and whether this call made it.

        Args:
            key: the same for the same work of one tenant.
            kept: looks whether it has been done already.
            make: does it and keeps it, unless it is not worth keeping.
        """
        tenant, made = current_tenant(), False

        async def once() -> Result:
            nonlocal made
            async with self._claimed(f"{tenant}:{key}", kept) as found:
                if found is not None:
                    return found
                made = True
                return await make()

        return await self._here.run((tenant, key), once), made

    @asynccontextmanager
    async def _claimed(
        self, key: str, kept: Callable[[], Awaitable[Result | None]]
    ) -> AsyncGenerator[Result | None]:
        """Yields what somebody else has made meanwhile, or None to whoever has to make it."""
        token, pause_s = uuid4().hex, _FIRST_PAUSE_S
        claimed = await self._store.claim(key, token, LEASE_S)
        while claimed is False:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            if (found := await kept()) is not None:
                yield found
                return
            claimed = await self._store.claim(key, token, LEASE_S)
        if claimed is None:
            yield None
            return
        renewing = asyncio.create_task(self._renewed(key, token))
        try:
            yield await kept()  # it may have been made between the look and the claim
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
            await self._store.unclaim(key, token)

    async def _renewed(self, key: str, token: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._store.renew(key, token, LEASE_S)
