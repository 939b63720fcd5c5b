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

from proxy_grm_client.answers import LineResult
from proxy_grm_client.cli.commands import judging, opened
from proxy_grm_client.cli.lines import FileLines, json_object
from proxy_grm_client.client import Client
from proxy_grm_client.progress import progress_bar

_BEGINS = b'{"id": "'
"""What each line of an output begins with."""


def run(asked: argparse.Namespace) -> int:
    """Judges what is not judged yet.

    A line without an id is known by its number: ``line-7``.
    """
    source, target = Path(asked.input), Path(asked.output)
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target} is the input; name another file for the output")
    lines = FileLines(source, _finished(target, asked.retry_errors))
    with (
        target.open("a", encoding="utf-8") as out,
        opened(asked) as client,
        progress_bar(lines.total, sys.stderr.isatty(), len(lines.known)) as count,
    ):
        done = Counter[str]()
        options = judging(asked) | {"patience_s": asked.timeout}
        for result in _results(client, lines, options):
            out.write(json.dumps(lines.record(result), ensure_ascii=False) + "\n")
            out.flush()
            count(result)
            done[result.status] += 1
    said = ", ".join(f"{number} {status}" for status, number in sorted(done.items()))
    sys.stderr.write(f"{target}: {len(lines.known)} lines ({said or 'nothing to do'})\n")
    for complaint in lines.repeated:
        sys.stderr.write(complaint + "\n")
    return int(bool(done["error"] or lines.repeated))


def _results(client: Client, lines: FileLines, options: dict[str, Any]) -> Iterator[LineResult]:
    yield from client.batch(lines.open(), **options)
    yield from lines.unread


def _finished(target: Path, retry_errors: bool) -> set[str]:
    """Ids in the output; a line that was cut off in the middle is taken away.

    Args:
        target: nothing of it is touched before all of it is known to be such an output.
        retry_errors: lines that tell of an error are taken away too.

    Raises:
        ValueError: the file is something else.
    """
    if not target.exists():
        return set()
    found: set[str] = set()
    kept_bytes, again = 0, False
    with target.open("rb") as file:
        for number, text in enumerate(file, start=1):
            whole = text.endswith(b"\n")
            line = json_object(text)
            if whole and line is not None and isinstance(line.get("id"), str):
                kept_bytes += len(text)
                if retry_errors and line.get("status") == "error":
                    again = True
                else:
                    found.add(line["id"])
            elif whole or not text.startswith(_BEGINS[: len(text)]):
                raise ValueError(
                    f"{target}:{number} is not a judgement; name another file for the output"
                )
    if kept_bytes < target.stat().st_size:
        os.truncate(target, kept_bytes)
    if again:
        _take_errors_away(target)
    return found


def _take_errors_away(target: Path) -> None:
    """Into a new file that then takes the old one's place: a kill loses nothing."""
    new = target.with_name(target.name + ".retrying")
    with target.open("rb") as file, new.open("wb") as kept:
        for text in file:
            if (json_object(text) or {}).get("status") != "error":
                kept.write(text)
    new.replace(target)
