"""Published preference sets into one record file: read, shuffle, filter, write, describe.

::

    pairs.jsonl            (or .parquet) the records
    pairs.drops.jsonl      everything left out, and why
    pairs.card.md, .json   what is in it and where it came from
    images/                by the digest of their bytes

Killed at any point and started again, it gives the same bytes as if it had not
been; when all is there already, it does nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from models.training.data.card import Card, FileEntry, read_card, write_card
from models.training.data.files import RecordsInvalid, read_records
from models.training.data.merging import Merge, PrepareOptions, drops_file
from models.training.data.readers import source_files
from models.training.data.records import PreferenceRecord
from models.training.data.staging import CheckOptions, SourceOptions, Stage

__all__ = ["PrepareOptions", "PrepareReport", "SourceOptions", "drops_file", "prepare"]

REVISION = 1
"""Raise it when the same options and sources would give other records."""


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """What came out.

    Attributes:
        output: the record file.
        card: what is in it; its counts are those of the whole preparation.
        was_there: nothing was done, everything was there already.
    """

    output: Path
    card: Card
    was_there: bool


def prepare(
    options: PrepareOptions, *, command: str = "", console: Console | None = None
) -> PrepareReport:
    """Makes a record file out of its sources.

    Args:
        options: what to make.
        command: as the user gave it, for the card.
        console: where the progress is shown; by default standard error.

    Raises:
        RecordsInvalid: a source is not there, or the output is in the way of a source
            or of another run.
    """
    _refuse_overlap(options)
    folder = options.output.parent
    folder.mkdir(parents=True, exist_ok=True)
    stage_folder = folder / f".{options.output.name}.stage"
    with _alone(folder), _progress(console) as progress:
        files = [_entries(source, progress) for source in options.sources]
        fingerprint = _digest(options.model_dump_json(), files)
        card = _finished(options.output, fingerprint)
        was_there = card is not None
        if card is None:
            stage = Stage(stage_folder, folder)
            keys = _fill(stage, options, files, progress)
            task = progress.add_task("merging", total=None)
            merge = Merge(options, stage, keys, lambda: progress.advance(task))
            merge.write()
            card = merge.card(fingerprint, command, files)
            write_card(options.output, card)
        shutil.rmtree(stage_folder, ignore_errors=True)
        return PrepareReport(options.output, card, was_there)


def _fill(
    stage: Stage, options: PrepareOptions, files: Sequence[list[FileEntry]], progress: Progress
) -> list[str]:
    """Stages every source that is not staged yet; returns their keys."""
    checks = CheckOptions(seed=options.seed, quality=options.quality, difficulty=options.difficulty)
    keys: list[str] = []
    for source, entries in zip(options.sources, files, strict=True):
        key = _digest(source.model_dump_json() + checks.model_dump_json(), [entries])
        if not stage.holds(key):
            task = progress.add_task(f"reading {source.format}", total=None)
            for _ in stage.fill(key, source, checks):
                progress.advance(task)
        keys.append(key)
    return keys


def _finished(output: Path, fingerprint: str) -> Card | None:
    """The card, when it is of these options and sources and everything it speaks of is there."""
    card = read_card(output)
    if card is None or card.fingerprint != fingerprint:
        return None
    for entry in card.files:
        file = output.with_name(entry.name)
        if not file.is_file() or FileEntry.of(file) != entry:
            return None
    paths = {
        ref.path or "" for record in read_records(output, PreferenceRecord) for ref in record.images
    }
    return card if all((output.parent / path).is_file() for path in paths) else None


def _entries(source: SourceOptions, progress: Progress) -> list[FileEntry]:
    found = source_files(source.path)
    task = progress.add_task(f"digests of {source.format}", total=len(found))
    entries: list[FileEntry] = []
    for file in found:
        name = file.relative_to(source.path) if source.path.is_dir() else Path(file.name)
        entries.append(FileEntry.of(file, name.as_posix()))
        progress.advance(task)
    return entries


def _digest(options: str, files: Sequence[Sequence[FileEntry]]) -> str:
    told = "\n".join(entry.model_dump_json() for entries in files for entry in entries)
    return hashlib.sha256(f"{REVISION}\n{options}\n{told}".encode()).hexdigest()[:32]


def _refuse_overlap(options: PrepareOptions) -> None:
    output = options.output.resolve()
    for source in options.sources:
        path = source.path.resolve()
        if output == path or (path.is_dir() and output.is_relative_to(path)):
            raise RecordsInvalid(
                f"{options.output} lies in the source {source.path}: choose another place for it"
            )


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """One run a folder; the lock goes with the process, however that ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise RecordsInvalid(f"another run is writing to {folder}: wait for it") from cause
        yield
    finally:
        os.close(handle)


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=console or Console(stderr=True),
    )
