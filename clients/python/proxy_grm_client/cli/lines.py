"""A file of comparisons, a JSON object a line, and what is written of each result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy_grm_client.answers import FailedLine, LineResult
from proxy_grm_client.errors import InvalidRequest
from proxy_grm_client.lines import own_id


class FileLines:
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
                if not text.strip():
                    continue
                line = json_object(text)
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
        """What is written of a result; lines are known by their numbers in the file."""
        number = self._numbers.pop(result.id or "", 0)
        written = record(result)
        return written | {"line": number} if result.status == "error" else written


def record(result: LineResult) -> dict[str, Any]:
    """A judgement as the service answers it, or the error of a line."""
    if not isinstance(result, FailedLine):
        return result.model_dump(mode="json")
    error = result.error
    told = {"code": error.code, "detail": error.detail, "request_id": error.request_id}
    return {"id": result.id, "line": result.line, "status": "error", "error": told}


def _id_of(line: dict[str, Any] | None, number: int) -> str:
    """The line's own id, or its number as one."""
    return own_id(line or {}) or f"line-{number}"


def json_object(text: bytes) -> dict[str, Any] | None:
    """The object that a line is; None where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
