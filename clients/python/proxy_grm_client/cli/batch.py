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
from proxy_grm_client.cli.commands import judging
from proxy_grm_client.cli.lines import FileLines, json_object
from proxy_grm_client.client import Client
from proxy_grm_client.progress import progress_bar

_TAIL_BYTES = 2**16


def run(asked: argparse.Namespace) -> int:
    """Judges what is not judged yet.

    A line without an id is known by its number: ``line-7``.
    """
    source, target = Path(asked.input), Path(asked.output)
    lines = FileLines(source, _finished(target))
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


def _results(client: Client, lines: FileLines, options: dict[str, Any]) -> Iterator[LineResult]:
    yield from client.batch(lines.open(), **options)
    yield from lines.unread


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
            line = json_object(text)
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
