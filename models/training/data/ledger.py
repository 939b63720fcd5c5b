"""The record of a distillation so far: one line a record that was asked about, only ever appended.

A line is one ``write`` call, so a process that is killed at any moment leaves
complete lines and at most one torn one, which the next run cuts off. The file is
brought to the disk about once a second and at the end; a power cut can lose what
came after that, and those records are asked about again. Lines are independent:
the last good one about a record counts, one that cannot be read counts for nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from models.comparison import Position
from models.errors import ModelsError
from models.training.data.records import PreferenceRecord, TeacherJudgement

FailureKind = Literal[
    "unreadable", "truncated", "refused", "rejected", "timeout", "unavailable", "bad_image"
]
"""Why a record has no judgement.

unreadable:  answered, but not in the judgement grammar, also when asked again
truncated:   the answer was cut off at the token limit
refused:     the teacher, or a content filter before it, would not answer
rejected:    the server did not take the request: too long, an option it does not know
timeout:     no answer in time
unavailable: the server could not be reached, was overloaded, or sent no chat completion
bad_image:   an image could not be read; the teacher was not asked
"""

ANSWERED: frozenset[FailureKind] = frozenset({"unreadable", "truncated", "refused"})
"""Failures that are the teacher's answer. The others say nothing about the record."""

_FORMAT = "proxy-grm distillation 1"
_FSYNC_EVERY_S = 1.0
_DETAIL_LENGTH = 300
_LONGEST_HEADER_BYTES = 2**20  # of a file that may be anything


class DistilInvalid(ModelsError):
    """A distillation cannot start as asked. The message says what to change."""


def storable(text: Any) -> Any:
    """JSON can spell half a surrogate pair, which no file can hold; "?" stands for it then."""
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


class Failure(BaseModel):
    """Why there is no judgement, for a program and for a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FailureKind
    detail: Annotated[str, BeforeValidator(lambda text: storable(text)[:_DETAIL_LENGTH])]


class Spent(BaseModel):
    """What answers have cost.

    Attributes:
        requests: sent, whatever came of them.
        unmetered: answers without a token count; the tokens below are too few by theirs.
    """

    model_config = ConfigDict(extra="forbid")

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0

    def add(self, more: Spent) -> None:
        """Adds another's amounts to these."""
        for name in Spent.model_fields:
            setattr(self, name, getattr(self, name) + getattr(more, name))


class Entry(BaseModel):
    """What asking about one record came to: a judgement or a failure.

    Attributes:
        digest: of what the teacher was shown, see `shown_digest`.
        verdicts: of every readable sample, where several were taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    id: str
    digest: str
    judgement: TeacherJudgement | None = None
    verdicts: tuple[Position, ...] = ()
    failure: Failure | None = None
    spent: Spent

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.judgement is None) == (self.failure is None):
            raise ValueError("an entry is either a judgement or a failure")
        return self


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry stands in the file: judgements are too long to keep in memory."""

    offset: int
    length: int
    digest: str
    failure: FailureKind | None


class Ledger:
    """An open ledger, locked against a second process.

    Args:
        path: created when missing, with its folder.
        settings: JSON values that decide what a teacher answers; a ledger takes
            no entries made under others.

    Raises:
        DistilInvalid: another process has it open, it is some other file, or it
            was begun with other settings. The file is left as it is.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.spent = Spent()
        self.damaged_lines = 0
        self._places: dict[tuple[str, str], _Place] = {}
        self._end = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            self._read(settings)
        except BaseException:
            os.close(self._file)
            raise
        self._synced_at_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def append(self, entry: Entry) -> None:
        """Adds what was found out about a record. When this returns, a kill cannot undo it."""
        line = entry.model_dump_json().encode() + b"\n"
        self._write(line)
        self._note(entry, len(line))
        if time.monotonic() - self._synced_at_s >= _FSYNC_EVERY_S:
            os.fsync(self._file)
            self._synced_at_s = time.monotonic()

    def find(self, record: PreferenceRecord) -> Entry | None:
        """The last entry about exactly this; None where its text, order or images changed since."""
        place = self._place(record)
        if place is None:
            return None
        return Entry.model_validate_json(os.pread(self._file, place.length, place.offset))

    def is_judged(self, record: PreferenceRecord) -> bool:
        """Whether `find` has a judgement."""
        place = self._place(record)
        return place is not None and place.failure is None

    def failure(self, record: PreferenceRecord) -> FailureKind | None:
        """How the last asking about this record failed, if it did."""
        place = self._place(record)
        return place.failure if place is not None else None

    def _place(self, record: PreferenceRecord) -> _Place | None:
        place = self._places.get((record.source, record.id))
        return place if place is not None and place.digest == shown_digest(record) else None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise DistilInvalid(
                f"another process is writing {self.path}; wait for it or name another output"
            ) from cause

    def _read(self, settings: dict[str, Any]) -> None:
        """Takes in what is there, or begins anew."""
        header = json.dumps({"ledger": _FORMAT, "settings": settings}, sort_keys=True) + "\n"
        with self.path.open("rb") as lines:
            first = lines.readline(_LONGEST_HEADER_BYTES)
            if not first.endswith(b"\n") and header.encode().startswith(first):  # new, or torn
                return self._begin(header)
            changes = _changes(_settings_of(self.path, first), json.loads(header)["settings"])
            self._end = len(first)
            for line in lines:
                if line.endswith(b"\n"):
                    self._take(line)
        if not changes:
            os.ftruncate(self._file, self._end)  # a line that a kill has torn
        elif any(place.failure in (None, *ANSWERED) for place in self._places.values()):
            raise DistilInvalid(
                f"{self.path} was begun with other settings ({'; '.join(changes)});"
                " go back to those, or name another output"
            )
        else:  # nothing was answered: a wrong name has just been put right
            self._begin(header)

    def _begin(self, header: str) -> None:
        os.ftruncate(self._file, 0)
        self._write(header.encode())
        self._end = len(header.encode())
        self._places = {}
        self.spent = Spent()

    def _take(self, line: bytes) -> None:
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            self.damaged_lines += 1
            self._end += len(line)
        else:
            self._note(entry, len(line))

    def _note(self, entry: Entry, length: int) -> None:
        failure = entry.failure.kind if entry.failure is not None else None
        place = _Place(self._end, length, entry.digest, failure)
        self._places[entry.source, entry.id] = place
        self.spent.add(entry.spent)
        self._end += length

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        while written < len(line):  # a disk that fills up takes a part, then raises
            written += os.write(self._file, line[written:])


def shown_digest(record: PreferenceRecord) -> str:
    """Digest of what a teacher sees of a record: question, responses in order, image references.

    An image file is known by its path, not by its content.
    """
    shown = [record.question, record.responses, [image.model_dump() for image in record.images]]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]


def _settings_of(path: Path, first: bytes) -> dict[str, Any]:
    try:
        header = json.loads(first)
        if header["ledger"] == _FORMAT:
            return dict(header["settings"])
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise DistilInvalid(f"{path} is not the ledger of a distillation; name another output")


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
