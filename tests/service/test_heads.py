from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.heads import MOST_BYTES, bounded_heads

pytestmark = pytest.mark.anyio

HEAD_S = 0.05
WHOLE = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


class Transport(asyncio.Transport):
    """A connection that remembers whether it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.said = b""
        self.unread, self.taken, self.looks = 10**6, 0, 0
        self.closed = asyncio.Event()
        self.aborted = asyncio.Event()

    def write(self, data: Any) -> None:
        self.said += data

    def close(self) -> None:
        self.closed.set()

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def abort(self) -> None:
        self.aborted.set()

    def get_write_buffer_size(self) -> int:
        self.unread -= self.taken
        self.looks += 1
        return self.unread

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(4 * HEAD_S)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says how much came: header fields, bytes of the body."""
    count, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        count, more = count + len(message["body"]), message["more_body"]
    told = b"%d fields, %d bytes;" % (len(scope["headers"]), count)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told})


def connected(
    app: Any = slow, head_s: float = HEAD_S, unread_s: float = 600.0
) -> tuple[Any, Transport]:
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_keep_alive=600)
    config.load()
    protocol = bounded_heads(head_s, unread_s)(config, ServerState(), {})
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


LONG_S = 600.0
POST = b"POST / HTTP/1.1\r\nhost: here\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


def of_length(count: int) -> bytes:
    """A head of a request, of so many bytes."""
    head = WHOLE[:-2] + b"x-long: \r\n\r\n"
    return head.replace(b"x-long: ", b"x-long: " + b"a" * (count - len(head)))


async def until_told(transport: Transport, told: bytes, times: int = 1) -> None:
    while transport.said.count(told) < times:
        assert not transport.closed.is_set(), transport.said
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("at_once", [1, 1000, 2**18])
@pytest.mark.parametrize("count", [60_000, MOST_BYTES])
async def test_a_long_head_is_read_however_it_comes(count: int, at_once: int):
    protocol, transport = connected(echo, LONG_S)
    head = of_length(count)
    for at in range(0, count, at_once):
        protocol.data_received(head[at : at + at_once])
    await until_told(transport, b"2 fields, 0 bytes;")
    assert not transport.closed.is_set()


@pytest.mark.parametrize(
    "sent",
    [
        WHOLE[:-2] + b"x-long: " + b"a" * 10**6,
        WHOLE[:-2] + b"a:b\r\n" * 10**5,
        b"GET /" + b"a" * 10**6,
        b"\r\n" * 10**5,
    ],
    ids=["one field", "many fields", "a path", "empty lines"],
)
@pytest.mark.parametrize("at_once", [1000, 2**18])
async def test_a_head_without_end_is_refused_and_nothing_more_of_it_is_kept(
    at_once: int, sent: bytes
):
    protocol, transport = connected(echo, LONG_S)
    for at in range(0, len(sent), at_once):
        protocol.data_received(sent[at : at + at_once])
    assert transport.said.startswith(b"HTTP/1.1 431 ")
    assert transport.said.count(b"HTTP/1.1") == 1
    assert b"\r\nconnection: close\r\n" in transport.said
    assert sum(len(value) for _, value in protocol.headers or ()) < MOST_BYTES
    assert len(protocol.headers or ()) < MOST_BYTES


async def test_who_was_refused_has_the_time_of_a_head_to_read_that():
    protocol, transport = connected(echo)
    protocol.data_received(WHOLE[:-2] + b"a:b\r\n" * 10**5)
    assert not transport.closed.is_set()
    protocol.data_received(b"\r\n" + WHOLE)
    await transport.closed.wait()
    assert transport.said.count(b"HTTP/1.1") == 1


async def test_a_head_without_end_behind_a_request_in_work_ends_both():
    protocol, transport = connected(slow, LONG_S)
    protocol.data_received(WHOLE + WHOLE[:-2] + b"a:b\r\n" * 10**5)
    assert transport.closed.is_set()
    assert transport.said == b""


async def test_what_comes_with_a_head_does_not_count():
    protocol, transport = connected(echo, LONG_S)
    for size in (10, 10**6):
        told = b"2 fields, %d bytes;" % size
        request = POST + b"content-length: %d\r\n\r\n" % size + b"a" * size
        protocol.data_received(request + request)
        await until_told(transport, told, 2)
    for at_once in (1, 7000):
        chunked = CHUNKED + b"%x\r\n%b\r\n" % (at_once, b"a" * at_once) * 20_000 + b"0\r\n\r\n"
        protocol.data_received(chunked)
        await until_told(transport, b"2 fields, %d bytes;" % (20_000 * at_once))
    assert not transport.closed.is_set()


@pytest.mark.parametrize("trailer", [b"a:b\r\n", b"a: " + b"b" * 10**5])
@pytest.mark.parametrize("body", [b"", b"1\r\na\r\n"])
async def test_trailers_close_the_connection(body: bytes, trailer: bytes):
    protocol, transport = connected(echo, LONG_S)
    protocol.data_received(CHUNKED + body + b"0\r\n")
    protocol.data_received(trailer)
    protocol.data_received(b"c:d\r\n")
    assert transport.closed.is_set()
    assert protocol.cycle.scope["headers"] == [
        (b"host", b"here"),
        (b"transfer-encoding", b"chunked"),
    ]


async def test_the_extension_of_a_chunk_may_not_go_on_for_ever():
    protocol, transport = connected(echo, LONG_S)
    protocol.data_received(CHUNKED + b"1;")
    protocol.data_received(b"a" * 10**6)
    assert transport.closed.is_set()


async def test_who_takes_nothing_of_an_answer_has_gone():
    protocol, transport = connected(unread_s=HEAD_S)
    protocol.pause_writing()
    await transport.aborted.wait()


async def test_who_takes_something_now_and_then_may_go_on():
    protocol, transport = connected(slow, LONG_S, unread_s=HEAD_S)
    transport.taken = 1
    protocol.pause_writing()
    while transport.looks < 5:
        await asyncio.sleep(HEAD_S)
    assert not transport.aborted.is_set()


async def test_who_has_taken_it_all_may_go_on():
    protocol, transport = connected(slow, LONG_S, unread_s=HEAD_S)
    protocol.pause_writing()
    protocol.resume_writing()
    await asyncio.sleep(4 * HEAD_S)
    assert not transport.aborted.is_set()
