"""The second half of a preparation: all staged sources become one record file and its card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydantic import Field, field_validator

from models.training.data.card import Card, FileEntry, Observer, SourceEntry
from models.training.data.drops import Drop, DropReason, counted
from models.training.data.files import replacing, write_records
from models.training.data.images import ImageLook
from models.training.data.readers import FORMATS
from models.training.data.records import ImageRef, PreferenceRecord
from models.training.data.similarity import Similarity, SimilarityOptions
from models.training.data.staging import CheckOptions, SourceOptions, Stage


class PrepareOptions(CheckOptions):
    """What a record file is made of; the same options and sources give the same bytes."""

    sources: tuple[SourceOptions, ...] = Field(min_length=1)
    output: Path = Field(description="the record file, .jsonl or .parquet")
    similarity: SimilarityOptions | None = Field(
        default=SimilarityOptions(), description="None: near-duplicates stay"
    )

    @field_validator("output")
    @classmethod
    def _known_format(cls, output: Path) -> Path:
        if output.suffix not in (".jsonl", ".parquet"):
            raise ValueError("output ends in .jsonl or .parquet")
        return output


def drops_file(output: Path) -> Path:
    """Where everything that was left out of a record file is listed."""
    return output.with_suffix(".drops.jsonl")


@dataclass(slots=True)
class _Tally:
    """Counts of one source."""

    rows: int = 0
    kept: int = 0
    no_records: list[DropReason] = field(default_factory=list[DropReason])


class Merge:
    """All staged sources through the similarity filter into one file.

    Args:
        options: of the whole preparation.
        stage: holds the sources.
        keys: of the sources in the stage, in their order.
        advance: called for every row.
    """

    def __init__(
        self,
        options: PrepareOptions,
        stage: Stage,
        keys: Sequence[str],
        advance: Callable[[], None],
    ) -> None:
        self._options = options
        self._stage = stage
        self._keys = keys
        self._advance = advance
        self._looks: dict[str, ImageLook] = {}
        self._similarity = (
            None if options.similarity is None else Similarity(options.similarity, self._look)
        )
        self._tallies = [_Tally() for _ in keys]
        self._filtered: list[DropReason] = []
        self._observer = Observer()

    def write(self) -> None:
        """Writes records and drops; each file appears when it is complete."""
        with replacing(drops_file(self._options.output)) as partial, partial.open("wb") as drops:
            records = self._observer.watch(self._records(drops))
            write_records(self._options.output, records, PreferenceRecord)

    def _records(self, drops: BinaryIO) -> Iterator[PreferenceRecord]:
        seen: set[str] = set()
        for source, key, tally in zip(
            self._options.sources, self._keys, self._tallies, strict=True
        ):
            for row in self._stage.rows(key):
                self._advance()
                tally.rows += 1
                if row.drop is not None and not row.was_record:
                    tally.no_records.append(row.drop.reason)
                    _tell(drops, row.drop, f"{source.path.name}/")
                    continue
                drop = row.drop
                if row.record is not None:
                    for ref, look in zip(row.record.images, row.looks, strict=True):
                        self._looks[ref.path or ""] = look
                    drop = self._repeats(row.record, seen)
                    if drop is None:
                        seen.add(row.record.id)
                        tally.kept += 1
                        self._stage.release(row.record)
                        yield row.record
                if drop is not None:
                    self._filtered.append(drop.reason)
                    _tell(drops, drop)

    def _repeats(self, record: PreferenceRecord, seen: set[str]) -> Drop | None:
        if record.id in seen:
            return Drop(id=record.id, reason=DropReason.REPEATED_ID, duplicate_of=record.id)
        return None if self._similarity is None else self._similarity.check(record)

    def _look(self, ref: ImageRef) -> ImageLook:
        return self._looks[ref.path or ""]

    def card(self, fingerprint: str, command: str, files: Sequence[list[FileEntry]]) -> Card:
        """What was written."""
        output = self._options.output
        sources = [
            SourceEntry(
                name=source.format,
                data_set=FORMATS[source.format].data_set,
                licence=source.licence or FORMATS[source.format].licence,
                rows=tally.rows,
                records=tally.rows - len(tally.no_records),
                dropped=counted(tally.no_records),
                kept=tally.kept,
                files=entries,
            )
            for source, tally, entries in zip(
                self._options.sources, self._tallies, files, strict=True
            )
        ]
        return Card(
            title=f"Preference pairs: {output.name}",
            fingerprint=fingerprint,
            command=command,
            options=self._options.model_dump(mode="json"),
            sources=sources,
            filtered=counted(self._filtered),
            statistics=self._observer.statistics(),
            files=[FileEntry.of(output), FileEntry.of(drops_file(output))],
            notes=[note for source in self._options.sources if (note := _cut_short(source))]
            + [note for entry in sources for note in _notes(entry)],
        )


def _cut_short(source: SourceOptions) -> str | None:
    if source.most_records is None:
        return None
    return f"Only the first {source.most_records} records of {source.format} were read."


def _notes(entry: SourceEntry) -> Iterator[str]:
    name = entry.data_set or entry.name
    if entry.records == 0:
        yield f"No record came from {name}: is it really in the format {entry.name!r}?"
    elif entry.kept == 0:
        yield f"The filters left nothing of {name}."
    if entry.kept and "NC" in entry.licence.upper().split("-"):
        yield f"{name} is under {entry.licence}: not for commercial use."
    if entry.kept and entry.licence == "unknown":
        yield f"The licence of {name} is unknown."


def _tell(drops: BinaryIO, drop: Drop, prefix: str = "") -> None:
    told = drop.model_copy(update={"id": prefix + drop.id})
    drops.write(told.model_dump_json(exclude_defaults=True).encode() + b"\n")
