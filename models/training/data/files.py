"""Record files: JSONL and Parquet with the same fields, read as a stream, written whole or not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic_core import from_json

from models.errors import ModelsError
from models.training.data.records import JudgedRecord, PreferenceRecord
from models.training.data.rows import Problem, Row, read_rows

R = TypeVar("R", bound=PreferenceRecord)

_GROUP_ROWS = 1000

_RECORD = pa.schema([
    ("id", pa.string()),
    ("source", pa.string()),
    ("question", pa.string()),
    ("images", pa.list_(pa.struct([("path", pa.string()), ("data", pa.string())]))),
    ("responses", pa.list_(pa.string())),
    ("label", pa.int8()),
    ("meta", pa.string()),  # JSON: its keys differ from source to source
])  # fmt: skip
_TEACHER = pa.struct([
    ("rubric", pa.string()),
    ("justification", pa.string()),
    ("evaluation", pa.string()),
    ("verdict", pa.int8()),
    ("model", pa.string()),
    ("prompt_tokens", pa.int64()),
    ("completion_tokens", pa.int64()),
])  # fmt: skip


class RecordsInvalid(ModelsError):
    """A record file is not one. The message says which line and what is wrong."""


def read_records(
    file: Path, kind: type[R], on_problem: Callable[[Problem], None] | None = None
) -> Iterator[R]:
    """The records of a JSONL or Parquet file, one at a time.

    Args:
        file: its ending says which of the two it is.
        kind: `PreferenceRecord`, or `JudgedRecord` for judged ones.
        on_problem: is told of each bad line, which is then left out.

    Raises:
        RecordsInvalid: the file has neither ending; or a line is bad and there is no `on_problem`.
    """
    _format(file)
    for row in read_rows(file):
        found = row if isinstance(row, Problem) else _record(file, row, kind)
        if not isinstance(found, Problem):
            yield found
        elif on_problem is None:
            raise RecordsInvalid(str(found))
        else:
            on_problem(found)


def record_of(fields: dict[str, Any], kind: type[R]) -> R:
    """The record of a row as it stands in a file.

    Raises:
        ValueError: it is none; the message names the first wrong field.
    """
    meta = fields.get("meta")
    if isinstance(meta, str):  # from Parquet
        fields = {**fields, "meta": from_json(meta)}
    try:
        return kind.model_validate(fields)
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from cause


def write_records(file: Path, records: Iterable[R], kind: type[R]) -> int:
    """Writes JSONL or Parquet, by the ending, and says how many records.

    The file appears when the last record is in it; until then an older one of
    that name stays. Writing the same records gives the same bytes.

    Raises:
        RecordsInvalid: the file has neither ending.
    """
    write = _write_table if _format(file) == ".parquet" else _write_lines
    with replacing(file) as partial:
        return write(partial, records, kind)


@contextmanager
def replacing(file: Path) -> Generator[Path]:
    """A name to write under; what was written takes the file's own name at the end, at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: what a killed run leaves is written over by the next.
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def sha256_of(file: Path) -> str:
    """Digest of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _format(file: Path) -> str:
    if file.suffix not in (".jsonl", ".parquet"):
        raise RecordsInvalid(f"{file}: a record file ends in .jsonl or .parquet")
    return file.suffix


def _record(file: Path, row: Row, kind: type[R]) -> R | Problem:
    try:
        return record_of(row.fields, kind)
    except ValueError as cause:
        return Problem(file, row.number, str(cause))


def _write_lines(file: Path, records: Iterable[R], _kind: type[R]) -> int:
    count = 0
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for record in records:
            stream.write(record.model_dump_json() + "\n")
            count += 1
    return count


def _write_table(file: Path, records: Iterable[R], kind: type[R]) -> int:
    schema = _RECORD.append(pa.field("teacher", _TEACHER)) if kind is JudgedRecord else _RECORD
    count = 0
    group: list[dict[str, Any]] = []
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for record in records:
            fields = json.loads(record.model_dump_json())
            group.append({**fields, "meta": json.dumps(fields["meta"], ensure_ascii=False)})
            count += 1
            if len(group) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
    return count
