"""Data cards: where a record file came from, what was left out of it and what is in it.

Two files beside the records, Markdown for people and JSON for programs, without
a time or a machine in them: the same data gives the same card.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from models.training.data.files import replacing, sha256_of
from models.training.data.filters import better_and_worse
from models.training.data.records import PreferenceRecord

R = TypeVar("R", bound=PreferenceRecord)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FileEntry(_Part):
    """One file by what is in it."""

    name: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, file: Path, name: str = "") -> FileEntry:
        """Reads the file to its end."""
        return cls(name=name or file.name, size_bytes=file.stat().st_size, sha256=sha256_of(file))


class SourceEntry(_Part):
    """One source.

    Attributes:
        name: of its format.
        data_set: its name on the hub.
        rows: read from it.
        records: of those, records.
        dropped: the others, by reason.
        kept: records that came through every filter.
        files: what was read.
    """

    name: str
    data_set: str
    licence: str
    rows: int
    records: int
    dropped: dict[str, int]
    kept: int
    files: list[FileEntry]


class Lengths(_Part):
    """Of responses, in characters."""

    mean: float
    p5: int
    median: float
    p95: int


class Statistics(_Part):
    """What is in a record file.

    Attributes:
        by_source: records of each data set.
        label_1_share: how often the first response is the better one; 0.5 when the order is random.
        longer_is_better_share: accuracy of always choosing the longer response; a judge
            has learned something only beyond it. Pairs of equal length count half.
        images: distinct paths.
    """

    records: int
    by_source: dict[str, int]
    label_1_share: float | None
    longer_is_better_share: float | None
    better: Lengths | None
    worse: Lengths | None
    images: int
    inline_images: int


class Card(_Part):
    """Everything that a reader of a record file wants to know.

    Attributes:
        fingerprint: digest of options and sources; a finished run is known by it.
        options: as given, seeds among them.
        filtered: records that a filter left out, by reason.
        notes: in words, what is unusual.
    """

    title: str
    fingerprint: str
    command: str
    options: dict[str, Any]
    sources: list[SourceEntry]
    filtered: dict[str, int]
    statistics: Statistics
    files: list[FileEntry]
    notes: list[str]


class Observer:
    """Counts records as they pass by."""

    def __init__(self) -> None:
        self.by_source: Counter[str] = Counter()
        self._label_1 = 0
        self._longer_is_better = 0.0
        self._better: list[int] = []
        self._worse: list[int] = []
        self._paths: set[str] = set()
        self._inline = 0

    def watch(self, records: Iterable[R]) -> Iterator[R]:
        """The same records."""
        for record in records:
            self._count(record)
            yield record

    def _count(self, record: PreferenceRecord) -> None:
        better, worse = (len(text) for text in better_and_worse(record))
        self.by_source[record.source] += 1
        self._label_1 += record.label == 1
        self._longer_is_better += 0.5 if better == worse else better > worse
        self._better.append(better)
        self._worse.append(worse)
        self._paths.update(ref.path for ref in record.images if ref.path is not None)
        self._inline += sum(ref.path is None for ref in record.images)

    def statistics(self) -> Statistics:
        """Of all records so far."""
        count = len(self._better)
        return Statistics(
            records=count,
            by_source=dict(sorted(self.by_source.items())),
            label_1_share=round(self._label_1 / count, 4) if count else None,
            longer_is_better_share=round(self._longer_is_better / count, 4) if count else None,
            better=_lengths(self._better),
            worse=_lengths(self._worse),
            images=len(self._paths),
            inline_images=self._inline,
        )


def card_files(records: Path) -> tuple[Path, Path]:
    """Where the card of a record file lies: Markdown, JSON."""
    return records.with_suffix(".card.md"), records.with_suffix(".card.json")


def write_card(records: Path, card: Card) -> None:
    """Writes both forms beside the record file, the JSON last."""
    markdown, machine = card_files(records)
    with replacing(markdown) as partial:
        partial.write_text(as_markdown(card), encoding="utf-8")
    with replacing(machine) as partial:
        partial.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_card(records: Path) -> Card | None:
    """The card of a record file; None when there is none that can be read."""
    try:
        return Card.model_validate_json(card_files(records)[1].read_bytes())
    except (OSError, ValueError):
        return None


def as_markdown(card: Card) -> str:
    """The card for a person."""
    found = card.statistics
    sections = [
        f"# {card.title}",
        *(f"> {note}" for note in card.notes),
        "## Sources",
        _table(
            ("source", "licence", "rows", "records", "kept"),
            [
                (one.data_set or one.name, one.licence, one.rows, one.records, one.kept)
                for one in card.sources
            ],
        ),
        *(
            f"Not a record in {one.data_set or one.name}: {_listed(one.dropped)}."
            for one in card.sources
            if one.dropped
        ),
        "## Left out by the filters",
        _table(("reason", "records"), card.filtered.items()) if card.filtered else "Nothing.",
        "## Contents",
        _table(("what", "value"), _facts(found)),
        "## Files",
        _table(
            ("file", "bytes", "sha256"),
            [
                (file.name, file.size_bytes, f"`{file.sha256}`")
                for file in [*card.files, *(file for one in card.sources for file in one.files)]
            ],
        ),
        "## How it was made",
        f"```\n{card.command}\n```" if card.command else "",
        f"```json\n{json.dumps(card.options, indent=2, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _facts(found: Statistics) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("records", found.records),
        *((f"records of {source}", count) for source, count in found.by_source.items()),
        ("images", found.images + found.inline_images),
        ("first response is the better one", _percent(found.label_1_share)),
        ("accuracy of choosing the longer one", _percent(found.longer_is_better_share)),
    ]
    for name, lengths in (("better", found.better), ("worse", found.worse)):
        if lengths is not None:
            told = f"{lengths.mean:.0f} / {lengths.p5} / {lengths.median:.0f} / {lengths.p95}"
            facts.append((f"{name} response, characters (mean / p5 / median / p95)", told))
    return facts


def _lengths(values: list[int]) -> Lengths | None:
    if not values:
        return None
    ordered = sorted(values)
    return Lengths(
        mean=round(sum(ordered) / len(ordered), 1),
        p5=ordered[len(ordered) * 5 // 100],
        median=median(ordered),
        p95=ordered[len(ordered) * 95 // 100],
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in counts.items())


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
