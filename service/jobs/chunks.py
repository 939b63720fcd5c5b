"""Lines and chunks: an upload cut up as it arrives, so that no more than a chunk is ever held."""

from __future__ import annotations

import asyncio
import zlib
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from dataclasses import dataclass

from service.errors import PayloadTooLarge

_CHUNK_LINES = 64
_CHUNK_BYTES = 2**20  # a chunk ends with the line that reaches it
_FAST = 1  # zlib's level for what is read once


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a job.

    Attributes:
        number: counted from 1, blank lines included.
        body: as it was sent; empty for a line that was longer than is read.
    """

    number: int
    body: bytes


async def chunked(
    upload: AsyncIterable[bytes], *, line_bytes: int, most_bytes: int, most_lines: int
) -> AsyncGenerator[list[Line]]:
    """An NDJSON upload as chunks of its lines, blank ones left out.

    Args:
        upload: bytes as they arrive, cut anywhere.
        line_bytes: a longer line loses its body, and nothing else is lost.
        most_bytes: of the whole upload.
        most_lines: that are not blank.

    Raises:
        PayloadTooLarge: the upload has more than `most_bytes` or `most_lines`.
    """
    splitter, gathering, received = _Splitter(line_bytes), _Gathering(most_lines), 0
    async for piece in upload:
        received += len(piece)
        if received > most_bytes:
            raise PayloadTooLarge(f"the job has more than the {most_bytes} bytes that are taken")
        for line in splitter.feed(piece):
            if gathering.full_with(line):
                yield gathering.taken()
    for line in splitter.rest():
        gathering.full_with(line)
    if gathering.lines:
        yield gathering.taken()


class _Gathering:
    """Lines that will be a chunk."""

    def __init__(self, most_lines: int) -> None:
        self.lines: list[Line] = []
        self._left = most_lines
        self._most_lines = most_lines
        self._held_bytes = 0

    def full_with(self, line: Line) -> bool:
        """Adds a line; whether the chunk is full now."""
        if self._left == 0:
            raise PayloadTooLarge(
                f"the job has more than the {self._most_lines} lines that are taken"
            )
        self._left -= 1
        self._held_bytes += len(line.body)
        self.lines.append(line)
        return len(self.lines) >= _CHUNK_LINES or self._held_bytes >= _CHUNK_BYTES

    def taken(self) -> list[Line]:
        """The chunk; the next one begins."""
        lines, self.lines, self._held_bytes = self.lines, [], 0
        return lines


class _Splitter:
    """Bytes in, lines out."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._begun = bytearray()
        self._too_long = False
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[Line]:
        """The lines that end in this piece."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            self._hold(piece[start:end])
            start = end + 1
            yield from self.rest()
        self._hold(piece[start:])

    def rest(self) -> Iterator[Line]:
        """What has been begun, as a line."""
        self._number += 1
        if self._too_long:
            yield Line(self._number, b"")
        elif body := self._body():
            yield Line(self._number, body)
        self._begun.clear()
        self._too_long = False

    def _body(self) -> bytes:
        """What the line says; a byte order mark before the first one says nothing."""
        begun = bytes(self._begun)
        return (begun.removeprefix(BOM_UTF8) if self._number == 1 else begun).strip()

    def _hold(self, part: bytes) -> None:
        if len(self._begun) + len(part) > self._most_bytes:
            self._too_long = True
            self._begun.clear()
        if not self._too_long:
            self._begun += part


async def pack_lines(lines: list[Line]) -> bytes:
    """A chunk's lines as they are kept."""
    text = b"\n".join(b"%d %b" % (line.number, line.body) for line in lines)
    return await asyncio.to_thread(zlib.compress, text, _FAST)


async def unpack_lines(packed: bytes) -> list[Line]:
    """A chunk's lines again."""
    text: bytes = await asyncio.to_thread(zlib.decompress, packed)
    split = (line.partition(b" ") for line in text.split(b"\n"))
    return [Line(int(number), body) for number, _, body in split]


async def count_lines(packed: bytes) -> int:
    """How many lines a chunk has."""
    text: bytes = await asyncio.to_thread(zlib.decompress, packed)
    return text.count(b"\n") + 1


async def pack_results(results: Iterable[bytes]) -> bytes:
    """A finished chunk's results as they are kept: NDJSON, compressed."""
    return await asyncio.to_thread(zlib.compress, b"".join(one + b"\n" for one in results))


async def unpack_results(packed: bytes) -> bytes:
    """A finished chunk's results as NDJSON."""
    return await asyncio.to_thread(zlib.decompress, packed)
