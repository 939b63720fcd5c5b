"""What a connection may do outside of bodies: heads have a time and a length, answers are read.

Bodies have their own bounds, in the application. Before its head is whole a request is known to
nobody there, and uvicorn would wait for it as long as the caller likes and keep all that comes. An
answer that nobody reads would keep its request, and what that holds, as long as the caller likes.
"""

from __future__ import annotations

import asyncio

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES = 64 * 1024
"""Of a head; as much as others allow, or more."""

_PIECE = 4096  # heads are read by so much: what is counted is exact to one of these
_TOO_LONG = b"the head of the request is too long"
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_TOO_LONG), _TOO_LONG)
)


def bounded_heads(head_s: float, unread_s: float) -> type[HttpToolsProtocol]:
    """Uvicorn's protocol for connections whose heads are whole in time and not too long.

    One that is late closes its connection. One that is too long is answered with 431; what still
    comes of it is thrown away until the caller has read that, or the time of a head is over.
    Trailers, which nobody here reads, close the connection. A caller who takes nothing of an answer
    for `unread_s` has gone.
    """

    class Bounded(_BoundedHeads):
        _head_s = head_s
        _unread_s = unread_s

    return Bounded


class _BoundedHeads(HttpToolsProtocol):
    _head_s: float
    _unread_s: float
    _closing: asyncio.TimerHandle | None = None
    _in_body = False  # or in what follows it: trailers
    _got_on = False  # a head has ended, or something of a body has come
    _bytes = 0  # since then
    _refused = False
    _looking: asyncio.TimerHandle | None = None
    _unread = 0  # bytes of answers, when it was looked last

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    @override
    def data_received(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._refused and not self.transport.is_closing():
            piece = data[at:] if self._in_body else data[at : at + _PIECE]
            at += len(piece)
            self._got_on = False
            super().data_received(piece)
            self._bytes = 0 if self._got_on else self._bytes + len(piece)
            if self._bytes > MOST_BYTES:
                self._refuse()

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            self.transport.close()
        else:
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._forget()
        self._in_body = self._got_on = True
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        self._got_on = True
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later()

    @override
    def resume_writing(self) -> None:
        self._look_no_more()
        super().resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._look_no_more()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._looking = self.loop.call_later(self._unread_s, self._look)

    def _look(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread:
            self._look_later()
        else:  # closing would wait until it is read
            self.transport.abort()

    def _look_no_more(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _refuse(self) -> None:
        """By an answer, unless that would run into another one."""
        answering = bool(self.cycle) and not self.cycle.response_complete
        if self._in_body or answering:
            self.transport.close()
            return
        self._refused = True
        self._expect_head()  # closing now, unread bytes left, could take the answer along
        self.transport.write(_REFUSAL)

    def _expect_head(self) -> None:
        if self._closing is None:
            self._closing = self.loop.call_later(self._head_s, self.transport.close)

    def _forget(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
