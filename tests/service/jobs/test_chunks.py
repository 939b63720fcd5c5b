from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import PayloadTooLarge
from service.jobs.chunks import (
    Line,
    chunked,
    count_lines,
    pack_lines,
    pack_results,
    unpack_lines,
    unpack_results,
)

from .conftest import pieces

pytestmark = pytest.mark.anyio


async def chunks_of(data: bytes, size: int = 7, **limits: Any) -> list[list[Line]]:
    most = {"line_bytes": 100, "most_bytes": 10**9, "most_lines": 10**6} | limits
    async with aclosing(pieces(data, size)) as upload, aclosing(chunked(upload, **most)) as chunks:
        return [chunk async for chunk in chunks]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_lines_are_the_same_wherever_the_upload_is_cut(size: int):
    [chunk] = await chunks_of(b'{"a": 1}\r\n\n  \n{"b": 2}\nlast', size)
    assert chunk == [Line(1, b'{"a": 1}'), Line(4, b'{"b": 2}'), Line(5, b"last")]


@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_a_byte_order_mark_is_no_part_of_the_first_line_and_of_any_other(size: int):
    mark = b"\xef\xbb\xbf"
    [chunk] = await chunks_of(mark + b"{}\n" + mark + b"{}", size)
    assert chunk == [Line(1, b"{}"), Line(2, mark + b"{}")]
    assert await chunks_of(mark + b"\n", size) == []


@pytest.mark.parametrize("data", [b"", b"\n", b"\n \r\n\t\n"])
async def test_nothing_but_blank_lines_is_nothing(data: bytes):
    assert await chunks_of(data) == []


async def test_a_line_that_is_too_long_loses_its_body_alone():
    [chunk] = await chunks_of(b"a\n" + b"x" * 101 + b"\n" + b"y" * 100 + b"\nb")
    assert chunk == [Line(1, b"a"), Line(2, b""), Line(3, b"y" * 100), Line(4, b"b")]


async def test_a_chunk_ends_after_64_lines_or_with_the_line_that_fills_it():
    assert [len(chunk) for chunk in await chunks_of(b"x\n" * 130, 1000)] == [64, 64, 2]
    big = b"x" * 400_000 + b"\n"
    found = await chunks_of(big * 7, 10_000, line_bytes=10**6)
    assert [len(chunk) for chunk in found] == [3, 3, 1]


async def test_too_much_is_refused_as_soon_as_it_is_known():
    with pytest.raises(PayloadTooLarge, match="10 bytes"):
        await chunks_of(b"x\n" * 6, most_bytes=10)
    with pytest.raises(PayloadTooLarge, match="3 lines"):
        await chunks_of(b"x\n" * 4, most_lines=3)
    assert len(await chunks_of(b"x\n\n\n\n" * 3, most_lines=3)) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**9), st.binary().map(lambda b: b.replace(b"\n", b"")))))
async def test_what_is_packed_comes_out_again(found: list[tuple[int, bytes]]):
    lines = [Line(number, body) for number, body in found]
    if lines:
        packed = await pack_lines(lines)
        assert await unpack_lines(packed) == lines
        assert await count_lines(packed) == len(lines)
    bodies = [body for _, body in found]
    assert await unpack_results(await pack_results(bodies)) == b"".join(b + b"\n" for b in bodies)
