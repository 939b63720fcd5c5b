"""``batch``: a file of comparisons to a file of judgements, which goes on where it was."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy_grm_client.batch import FailedLine, LineResult
from proxy_grm_client.cli.commands import judging
from proxy_grm_client.client import Client
from proxy_grm_client.errors import InvalidRequest
from proxy_grm_client.progress import progress_bar

_TAIL_BYTES = 2**16


def run(asked: argparse.Namespace) -> int:
    """Judges what is not judged yet.

    A line without an id is known by its number: ``line-7``.
    """
    source, target = Path(asked.input), Path(asked.output)
    lines = _Lines(source, _finished(target))
    with (
        target.open("a", encoding="utf-8") as out,
        Client(asked.url) as client,
        progress_bar(lines.total, sys.stderr.isatty(), len(lines.known)) as count,
    ):
        done = Counter[str]()
        for result in _results(client, lines, judging(asked)):
            out.write(json.dumps(lines.record(result), ensure_ascii=False) + "\n")
            out.flush()
            count(result)
            done[result.status] += 1
    said = ", ".join(f"{number} {status}" for status, number in sorted(done.items()))
    sys.stderr.write(f"{target}: {len(lines.known)} lines ({said or 'nothing to do'})\n")
    for complaint in lines.repeated:
        sys.stderr.write(complaint + "\n")
    return int(bool(done["error"] or lines.repeated))


def _results(client: Client, lines: _Lines, options: dict[str, Any]) -> Iterator[LineResult]:
    yield from client.batch(lines.open(), **options)
    yield from lines.unread


class _Lines:
    """The lines of a file that have no result yet.

    Attributes:
        known: ids that have one, or have been sent.
        unread: those that are no JSON objects.
        repeated: what to say of ids that stand on several lines; the first counts.
    """

    def __init__(self, source: Path, finished: set[str]) -> None:
        self._source = source
        self._numbers: dict[str, int] = {}
        self.known = finished
        self.unread: list[FailedLine] = []
        self.repeated: list[str] = []
        with source.open("rb") as file:
            self.total = sum(1 for line in file if line.strip())

    def open(self) -> Iterator[dict[str, Any]]:
        """Those that can be sent, each with an id."""
        seen: set[str] = set()
        with self._source.open("rb") as file:
            for number, text in enumerate(file, start=1):
                line = _object(text) if text.strip() else {}
                if line == {}:
                    continue
                line_id = _id_of(line, number)
                if line_id in seen:
                    told = f"{self._source}:{number}: {line_id!r} stands further up too; left out"
                    self.repeated.append(told)
                elif line_id not in self.known:
                    self.known.add(line_id)
                    self._numbers[line_id] = number
                    if line is None:
                        error = InvalidRequest("the line is no JSON object")
                        self.unread.append(FailedLine(line_id, number, error))
                    else:
                        yield line | {"id": line_id}
                seen.add(line_id)

    def record(self, result: LineResult) -> dict[str, Any]:
        """What is written of a result."""
        number = self._numbers.pop(result.id or "", 0)
        if not isinstance(result, FailedLine):
            return result.model_dump(mode="json")
        error = result.error
        told = {"code": error.code, "detail": error.detail, "request_id": error.request_id}
        return {"id": result.id, "line": number, "status": "error", "error": told}


def _id_of(line: dict[str, Any] | None, number: int) -> str:
    """The line's own id, or its number as one."""
    found = (line or {}).get("id")
    return found if isinstance(found, str) and found else f"line-{number}"


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _finished(target: Path) -> set[str]:
    """Ids in the output; a line that was cut off in the middle is taken away.

    Raises:
        ValueError: the file is something else.
    """
    if not target.exists():
        return set()
    _cut_unfinished_line(target)
    found: set[str] = set()
    with target.open("rb") as file:
        for number, text in enumerate(file, start=1):
            line = _object(text)
            if line is None or not isinstance(line.get("id"), str):
                raise ValueError(
                    f"{target}:{number} is not a judgement; name another file for the output"
                )
            found.add(line["id"])
    return found


def _cut_unfinished_line(target: Path) -> None:
    with target.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _TAIL_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)
