from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.api.errors import RequestInvalid
from service.api.parsing import parsed
from service.api.schemas import ScoreRequest
from service.errors import PayloadTooLarge
from service.process_pool import ProcessPool

pytestmark = pytest.mark.anyio

GOOD = {"question": "How many?", "responses": ["One.", "Two."]}


class CountingPool(ProcessPool):
    asked = 0

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return await super().run(function, *args, **kwargs)


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[CountingPool]:
    started = CountingPool(1, cpu_s=20, memory_bytes=2**30)
    yield started
    await started.close()


async def read(pool: CountingPool, text: bytes) -> tuple[ScoreRequest | RequestInvalid, bool]:
    """What comes of it, and whether a child read it."""
    pool.asked = 0
    try:
        return await parsed(pool, ScoreRequest, text), pool.asked == 1
    except RequestInvalid as refused:
        return refused, pool.asked == 1


async def test_an_ordinary_request_is_read_here(pool: CountingPool):
    picture = [{"data": "A" * 2**20}]
    asked, elsewhere = await read(pool, json.dumps(GOOD | {"images": picture}).encode())
    assert isinstance(asked, ScoreRequest)
    assert not elsewhere


@pytest.mark.parametrize(
    "changes",
    [
        {"images": [{"data": "A" * 3 * 2**20}]},
        {"question": "one, two, three, " * 3000},
    ],
    ids=["long", "many commas"],
)
async def test_a_long_request_is_read_elsewhere_and_is_the_same(
    changes: dict[str, Any], pool: CountingPool
):
    text = json.dumps(GOOD | changes).encode()
    asked, elsewhere = await read(pool, text)
    assert elsewhere
    assert asked == ScoreRequest.model_validate_json(text)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD | {f"f{n}": n for n in range(200_000)}).encode(),
        json.dumps(GOOD | {"images": [{"data": "A"}] * 300_000}).encode(),
        json.dumps(GOOD | {"label": "MARK" * 6000}).replace("MARK", "\\u005b\\u005d").encode(),
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b"[" + b"1," * 3_000_000,
        b"\xff" * 3_000_000,
    ],
    ids=["unknown fields", "pictures", "escapes", "depth", "nested", "cut list", "no text"],
)
async def test_a_text_made_to_be_hard_to_read_is_refused_in_few_words(
    text: bytes, pool: CountingPool
):
    refused, elsewhere = await read(pool, text)
    assert isinstance(refused, RequestInvalid)
    assert elsewhere
    assert 1 <= len(refused.errors) <= 10
    assert len(refused.detail) < 400


async def test_a_text_that_takes_more_memory_than_there_is_is_too_large():
    small = ProcessPool(1, memory_bytes=128 * 2**20, imports=("service.api.schemas",))
    try:
        with pytest.raises(PayloadTooLarge, match="more memory or time"):
            await parsed(small, ScoreRequest, b"[" + b"{}," * 8_000_000 + b"{}]")
        asked = await parsed(small, ScoreRequest, json.dumps(GOOD).encode())
        assert asked.question == "How many?"
    finally:
        await small.close()
