"""Files that a job may name instead of sending its lines: JSONL and Parquet.

A source is a URL under one of the prefixes of `PROXY_GRM_JOB_SOURCES`, and nothing that only
looks like one: no `..`, no chained URLs, no other scheme, no symbolic link, no device.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from service.errors import InvalidRequest
from service.jobs.chunks import Line, chunked
from service.settings import JOB_SOURCE_SCHEMES

_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_READ_BYTES = 2**20
_ROWS = 64
_NOT_ALLOWED = "jobs are not read from there; the operator lists the places where they are"


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source that is being read.

    Attributes:
        version: differs when the file was changed.
    """

    file: IO[bytes]
    format: str
    version: str


def open_source(url: str, prefixes: tuple[str, ...]) -> OpenedSource:
    """Opens a source, if it is under one of the prefixes. Blocks.

    Raises:
        InvalidRequest: it may not be read, is not there, or is of a format that is not read.
    """
    prefix = _prefix_of(url, prefixes)
    suffix = os.path.splitext(url)[1]
    if suffix not in _SUFFIXES:
        raise InvalidRequest(f"a source ends in one of {', '.join(_SUFFIXES)}")
    scheme = url.partition("://")[0]
    try:
        file, version = _local(url, prefix) if scheme == "file" else _remote(scheme, url)
    except ImportError as cause:
        raise InvalidRequest(f"this server has no support for {scheme}:// installed") from cause
    except OSError as cause:
        raise InvalidRequest("the source cannot be read") from cause
    return OpenedSource(file, _SUFFIXES[suffix], version)


async def source_chunks(
    source: OpenedSource, *, line_bytes: int, most_lines: int
) -> AsyncGenerator[list[Line]]:
    """The source's lines or rows as chunks, always cut in the same places.

    Raises:
        InvalidRequest: it cannot be read, or not as what its name says.
        PayloadTooLarge: it has more than `most_lines`.
    """
    reading = _rows(source.file) if source.format == "parquet" else _pieces(source.file)
    limits = {"line_bytes": line_bytes, "most_bytes": 2**63, "most_lines": most_lines}
    try:
        async with aclosing(reading) as pieces, aclosing(chunked(pieces, **limits)) as chunks:
            async for chunk in chunks:
                yield chunk
    except OSError as cause:
        raise InvalidRequest("the source cannot be read") from cause


def _prefix_of(url: str, prefixes: tuple[str, ...]) -> str:
    scheme, found, path = url.partition("://")
    plain = url.isprintable() and not set(url) & set("\\?#*[]{}") and "::" not in url
    steps = path.lstrip("/").split("/")
    if not found or scheme not in JOB_SOURCE_SCHEMES or not plain or {"", ".", ".."} & {*steps}:
        raise InvalidRequest(_NOT_ALLOWED)
    for prefix in prefixes:
        if url.startswith(prefix.rstrip("/") + "/"):
            return prefix.rstrip("/")
    raise InvalidRequest(_NOT_ALLOWED)


def _local(url: str, prefix: str) -> tuple[IO[bytes], str]:
    """A regular file that is where its name says: below the prefix, links are not followed."""
    root = Path(prefix.removeprefix("file://")).resolve()
    wanted = f"{root}/{url[len(prefix) + 1 :]}"
    descriptor = os.open(wanted, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or os.readlink(f"/proc/self/fd/{descriptor}") != wanted:
        os.close(descriptor)
        raise InvalidRequest(_NOT_ALLOWED)
    version = f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
    return os.fdopen(descriptor, "rb"), version


def _remote(scheme: str, url: str) -> tuple[IO[bytes], str]:
    import fsspec

    system = fsspec.filesystem(scheme)
    return cast("IO[bytes]", system.open(url, "rb")), str(system.ukey(url))


async def _pieces(file: IO[bytes]) -> AsyncGenerator[bytes]:
    while piece := await asyncio.to_thread(file.read, _READ_BYTES):
        yield piece


async def _rows(file: IO[bytes]) -> AsyncGenerator[bytes]:
    """Parquet's rows as NDJSON."""
    rows = await asyncio.to_thread(_row_groups, file)
    while True:
        some = await asyncio.to_thread(next, rows, None)
        if some is None:
            return
        yield some


def _row_groups(file: IO[bytes]) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(_ROWS):
            yield b"".join(_line(row) for row in batch.to_pylist())
    except (pyarrow.ArrowException, ValueError, ArithmeticError) as cause:
        # Texts that are no UTF-8 and dates that no calendar has are found when they are converted.
        raise InvalidRequest("the source cannot be read as Parquet") from cause


def _line(row: dict[str, Any]) -> bytes:
    asked = _without_nulls(row)
    if isinstance(asked.get("images"), list):
        asked["images"] = [_image(image) for image in asked["images"]]
    return json.dumps(asked, default=str).encode() + b"\n"


def _without_nulls(value: Any) -> Any:
    """Parquet has a field in every row or in none: null is how a row leaves it out."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _image(image: Any) -> Any:
    """A picture in a column: bytes, `{"bytes", "path"}` as data sets have it, or as on the wire."""
    held = image.get("bytes") if isinstance(image, dict) else image
    if isinstance(held, bytes):
        return {"data": base64.b64encode(held).decode()}
    return {"data": held} if isinstance(held, str) else image
