"""How long a connection may take to send the head of a request.

Bodies have their own bound, in the application. Before its head is whole a request is known to
nobody there, and uvicorn would wait for it as long as the caller likes.
"""

from __future__ import annotations

import asyncio

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def bounded_heads(head_s: float) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol, closing connections whose next head is not whole in time."""

    class BoundedHeads(HttpToolsProtocol):
        _closing: asyncio.TimerHandle | None = None

        @override
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_head()

        @override
        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._expect_head()

        @override
        def on_headers_complete(self) -> None:
            self._forget()
            super().on_headers_complete()

        @override
        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            if self._closing is None:
                self._closing = self.loop.call_later(head_s, self.transport.close)

        def _forget(self) -> None:
            if self._closing is not None:
                self._closing.cancel()
                self._closing = None

    return BoundedHeads
