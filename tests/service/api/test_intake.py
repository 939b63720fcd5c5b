from __future__ import annotations

import asyncio
import contextlib
import json
from codecs import BOM_UTF8
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.images import Images
from service.process_pool import ProcessPool
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


class BusyPool(ProcessPool):
    """Whose children are at something else for a while."""

    async def run_for(self, cpu_s: float, function: Any, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.5)
        return await super().run_for(cpu_s, function, *args, **kwargs)


@pytest.mark.parametrize("path", ["/score", "/rubric", "/verify", "/rank", "/score/batch"])
async def test_waiting_for_a_child_that_reads_a_long_text_is_the_callers_time(
    path: str, start_gateway, proxy_release: str
):
    images = Images(LimitSettings(), 12544, BusyPool(1))
    gateway = await start_gateway(images=images, release=proxy_release)
    long = {"question": "q" * 900_000, "responses": ["a" * 900_000, "b" * 900_000]}
    asked = long | {"timeout_s": 0.5}
    if path == "/verify":
        asked["rubric"] = {"text": "1. Right (100%)."}
    answer = await gateway.client.post(path, content=json.dumps(asked), timeout=60)
    told = answer.json().get("error", answer.json())
    assert (told["status"], told["code"]) == (504, "deadline_exceeded")
    assert (gateway.engine.requests, gateway.proxy.requests) == ([], [])
    await images.pool.close()


@pytest.mark.parametrize("path", ["/score/batch", "/jobs"])
async def test_an_upload_that_trickles_in_is_ended_though_it_never_pauses(path: str, start_gateway):
    limits = LimitSettings(body_s=0.5, upload_bytes_per_s=1000)
    gateway = await start_gateway(listening=True, limits=limits)
    address = urlsplit(str(gateway.client.base_url))
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: 1000000\r\n"
    writer.write(f"{head}content-type: application/x-ndjson\r\n\r\n".encode())

    async def trickle() -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(trickle())
    answer = await reader.read(1)
    sending.cancel()
    with contextlib.suppress(ConnectionResetError):  # what was sent last is not read any more
        while more := await reader.read(2**16):
            answer += more
    said, _, body = answer.partition(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 504 ")
    assert "less than 1000 bytes a second" in json.loads(body)["detail"]
    writer.close()


@pytest.mark.parametrize("commas", [0, 6000], ids=["read here", "read in a child process"])
async def test_a_byte_order_mark_before_a_body_is_no_part_of_it(commas: int, gateway):
    body = {"question": "How many?" + "," * commas, "responses": ["One.", "Two."]}
    answer = await gateway.client.post("/score", content=BOM_UTF8 + json.dumps(body).encode())
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
