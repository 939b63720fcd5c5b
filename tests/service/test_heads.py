from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.heads import bounded_heads

pytestmark = pytest.mark.anyio

HEAD_S = 0.05
WHOLE = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


class Transport(asyncio.Transport):
    """A connection that remembers whether it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.said = b""
        self.closed = asyncio.Event()

    def write(self, data: Any) -> None:
        self.said += data

    def close(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(4 * HEAD_S)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def connected() -> tuple[Any, Transport]:
    config = uvicorn.Config(slow, log_config=None, lifespan="off", timeout_keep_alive=600)
    config.load()
    protocol = bounded_heads(HEAD_S)(config, ServerState(), {})
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def until_said(transport: Transport, count: int) -> None:
    while transport.said.count(b"HTTP/1.1 204") < count:
        await asyncio.sleep(HEAD_S)


@pytest.mark.parametrize("sent", [b"", WHOLE[:20]], ids=["nothing", "half a head"])
async def test_a_connection_without_a_whole_head_is_closed(sent: bytes):
    protocol, transport = connected()
    if sent:
        protocol.data_received(sent)
    await transport.closed.wait()
    assert transport.said == b""


async def test_a_head_that_trickles_in_is_not_waited_for():
    protocol, transport = connected()
    protocol.data_received(WHOLE[:-2])
    while not transport.closed.is_set():
        protocol.data_received(b"x-slow: 1\r\n")
        await asyncio.sleep(HEAD_S / 4)
    assert transport.said == b""


async def test_what_follows_a_whole_head_takes_as_long_as_it_takes():
    protocol, transport = connected()
    protocol.data_received(WHOLE)
    await until_said(transport, 1)
    assert not transport.closed.is_set()


async def test_the_next_request_on_the_connection_is_held_to_it_too():
    protocol, transport = connected()
    protocol.data_received(WHOLE)
    await until_said(transport, 1)
    protocol.data_received(WHOLE)
    await until_said(transport, 2)
    assert not transport.closed.is_set()
    protocol.data_received(WHOLE[:20])
    await transport.closed.wait()
