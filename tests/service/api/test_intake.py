from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import pytest

from service.settings import LimitSettings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/score", "/score/batch", "/jobs"])
async def test_a_body_that_does_not_come_is_told_so_and_its_connection_closed(
    path: str, start_gateway
):
    gateway = await start_gateway(listening=True, limits=LimitSettings(body_s=0.1))
    address = urlsplit(str(gateway.client.base_url))
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n"
    writer.write(f"{head}content-type: application/x-ndjson\r\n\r\n{{".encode())
    said, _, body = (await reader.read()).partition(b"\r\n\r\n")  # until it is closed
    assert said.startswith(b"HTTP/1.1 504 ")
    assert b"connection: close" in said.lower()
    assert json.loads(body)["code"] == "deadline_exceeded"
    writer.close()
