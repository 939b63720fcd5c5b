"""Rows out of JSONL, JSON arrays and Parquet, one at a time, and what is wrong with the others."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import from_json

SUFFIXES = (".parquet", ".jsonl", ".json")

LONGEST_ROW_BYTES = 256 * 2**20
"""Eight large images inline; what is longer is no row."""

_READ_BYTES = 2**20
_BATCH_ROWS = 64  # with images inside, some 20 MB
_BOM = b"\xef\xbb\xbf"
_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: of the line, the array's element or the row of the table, from 1.
    """

    number: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that could not be read; the others are not lost by it.

    Attributes:
        number: as of a row; 0 when it is the file that cannot be read.
    """

    file: Path
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.reason}"


def read_rows(file: Path, longest: int = LONGEST_ROW_BYTES) -> Iterator[Row | Problem]:
    """Every row of a file, by its ending; a ``.json`` file may also hold one object a line.

    What cannot be resumed after a fault (an array's element that is no JSON, a
    broken page of a table) ends the file with one problem.

    Args:
        file: its ending is one of `SUFFIXES`.
        longest: bytes of a line; a longer one is a problem, and is not loaded.
    """
    try:
        yield from _table(file) if file.suffix == ".parquet" else _json(file, longest)
    except OSError as cause:
        yield Problem(file, 0, f"cannot be read: {cause.strerror or 'damaged'}")


def _table(file: Path) -> Iterator[Row | Problem]:
    number = 0
    try:
        # By default a group of rows, images and all, is loaded whole.
        with pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(number, fields)
    except (pa.ArrowException, UnicodeDecodeError) as cause:
        yield Problem(file, number + 1 if number else 0, f"not Parquet, or damaged: {cause}")


def _json(file: Path, longest: int) -> Iterator[Row | Problem]:
    with file.open("rb") as stream:
        start = len(_BOM) if stream.read(len(_BOM)) == _BOM else 0
        stream.seek(start)
        head = stream.read(4096)
        is_array = file.suffix == ".json" and head.lstrip().startswith(b"[")
        stream.seek(start + head.index(b"[") + 1 if is_array else start)
        yield from (_array if is_array else _lines)(file, stream, longest)


def _lines(file: Path, stream: BinaryIO, longest: int) -> Iterator[Row | Problem]:
    number = 0
    while line := stream.readline(longest):
        number += 1
        if len(line) == longest and not line.endswith(b"\n"):
            while (rest := stream.readline(_READ_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Problem(file, number, f"longer than {longest} bytes")
        elif line.strip():
            yield _parsed(file, number, line)


def _array(file: Path, stream: BinaryIO, longest: int) -> Iterator[Row | Problem]:
    """The elements of an array whose "[" has been read."""
    # What is not UTF-8 is carried on, to be found fault with in its own element.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    scanner = json.JSONDecoder()
    text, at, number, size = "", 0, 0, _READ_BYTES
    while True:
        at = _after_separator(text, at)
        if text.startswith("]", at):
            return
        end = _element_end(scanner, text, at)
        if end is not None:
            number += 1
            yield _parsed(file, number, text[at:end].encode("utf-8", "surrogateescape"))
            at, size = end, _READ_BYTES
            continue
        chunk = stream.read(size)
        if not chunk or len(text) - at > longest:
            yield Problem(file, number + 1, "the array is cut off or damaged from here on")
            return
        text, at = text[at:] + decoder.decode(chunk), 0
        size *= 2  # a long element is not looked at again for every megabyte of it


def _after_separator(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _element_end(scanner: json.JSONDecoder, text: str, at: int) -> int | None:
    """Where the element ends; None when not all of it has been read, or it is no JSON."""
    try:
        _, end = scanner.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    # "12" may be the beginning of "123": only what follows shows that it has ended.
    return end if text[end - 1] in '}]"' or end < len(text) else None


def _parsed(file: Path, number: int, text: bytes) -> Row | Problem:
    try:
        fields = from_json(text)
    except ValueError as cause:
        return Problem(file, number, f"not JSON: {cause}")
    if not isinstance(fields, dict):
        return Problem(file, number, "not a JSON object")
    return Row(number, fields)
