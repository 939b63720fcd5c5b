from __future__ import annotations

import asyncio
import contextlib

import pytest
from redis.exceptions import TimeoutError as RedisTimeout

from service.errors import StoreUnavailable
from service.jobs.connection import Connection

pytestmark = pytest.mark.anyio


async def test_a_caller_that_has_left_is_not_told_that_the_store_is_gone():
    connection = Connection("redis://127.0.0.1:1", retries=0)

    async def forgetting() -> None:
        """A command in which a cancellation is lost, as in redis-py."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        raise RedisTimeout

    asking = asyncio.create_task(connection.ask(forgetting()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await connection.close()


async def test_a_store_that_takes_connections_and_is_silent_is_given_up_after_so_many_tries():
    tries: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(writer)
        await reader.read(-1)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = Connection(f"redis://127.0.0.1:{port}", timeout_s=0.05, retries=2)
    try:
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await connection.ask(connection.redis.get("a"))
    finally:
        await connection.close()
        for writer in tries:
            writer.close()
        server.close()
    assert len(tries) == 3
