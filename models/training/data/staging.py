"""The first half of a preparation: one source, read and checked, with its images laid ready.

What a source gives is kept in one file, a line a row, which appears when it is
complete; a run that was killed goes on behind the last complete source. Images
lie under the digest of their bytes, each once, and are moved to the output when
a kept record shows them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.training.data.drops import Drop
from models.training.data.files import replacing
from models.training.data.filters import (
    Difficulty,
    DifficultyOptions,
    Quality,
    QualityOptions,
    first_drop,
)
from models.training.data.images import ImageLook, image_bytes, look_at
from models.training.data.readers import FORMATS, read_source
from models.training.data.records import ImageRef, PreferenceRecord

IMAGES = "images"
"""Folder of the images, beside the record file and in the stage."""


class SourceOptions(BaseModel):
    """One source of pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(description=f"one of {', '.join(FORMATS)}")
    path: Path = Field(description="a file or folder, as downloaded")
    licence: str | None = Field(default=None, description="None: as published")
    most_records: int | None = Field(default=None, ge=1, description="the first so many are read")

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"no format {name!r}: one of {', '.join(FORMATS)}")
        return name


class CheckOptions(BaseModel):
    """What is done to each record by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, description="of the order of the responses")
    quality: QualityOptions = QualityOptions()
    difficulty: DifficultyOptions = DifficultyOptions()


class StagedRow(BaseModel):
    """What became of one row of a source: a record, or a drop.

    Attributes:
        looks: at each image of the record.
        was_record: for a drop, whether the row gave a record, which a filter left out.
    """

    record: PreferenceRecord | None = None
    looks: tuple[ImageLook, ...] = ()
    drop: Drop | None = None
    was_record: bool = False


class Stage:
    """A folder of intermediate results; it can be deleted at any time between runs.

    Args:
        folder: of the stage.
        output: the folder that the images end up in.
    """

    def __init__(self, folder: Path, output: Path) -> None:
        self._folder = folder
        self._output = output

    def rows(self, key: str) -> Iterator[StagedRow]:
        """The rows staged under a key, in the order of the source."""
        with self._file(key).open("rb") as stream:
            for line in stream:
                yield StagedRow.model_validate_json(line)

    def holds(self, key: str) -> bool:
        """Whether a source was staged to its end."""
        return self._file(key).is_file()

    def fill(self, key: str, source: SourceOptions, options: CheckOptions) -> Iterator[StagedRow]:
        """Stages a source row by row; complete when the iteration is."""
        with replacing(self._file(key)) as partial, partial.open("wb") as stream:
            for row in self._checked(source, options):
                stream.write(row.model_dump_json().encode() + b"\n")
                yield row

    def release(self, record: PreferenceRecord) -> None:
        """Moves the images of a record to the output."""
        for ref in record.images:
            path = ref.path or ""
            staged, final = self._folder / path, self._output / path
            if not final.exists():
                final.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(final)

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.jsonl"

    def _checked(self, source: SourceOptions, options: CheckOptions) -> Iterator[StagedRow]:
        root = source.path if source.path.is_dir() else source.path.parent
        pictures = _Pictures(root, self._folder, self._output)
        filters = (Quality(options.quality, pictures.look), Difficulty(options.difficulty))
        count = 0
        for found in read_source(source.format, source.path):
            if isinstance(found, Drop):
                yield StagedRow(drop=found)
                continue
            record = found.shuffle_order(options.seed)
            drop = first_drop(record, filters)
            if drop is not None:
                yield StagedRow(drop=drop, was_record=True)
            else:
                looks = tuple(pictures.look(ref) for ref in record.images)
                images = tuple(pictures.store(ref) for ref in record.images)
                yield StagedRow(record=record.model_copy(update={"images": images}), looks=looks)
            count += 1
            if count == source.most_records:
                return


class _Pictures:
    """The images of a source; each is decoded once, in however many records it stands."""

    def __init__(self, root: Path, stage: Path, output: Path) -> None:
        self._root = root
        self._places = (output, stage)
        self._looks: dict[str, ImageLook] = {}

    def look(self, ref: ImageRef) -> ImageLook:
        """Raises `ImageRefused`."""
        content = image_bytes(ref, self._root)
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._looks:
            self._looks[digest] = look_at(content)
        return self._looks[digest]

    def store(self, ref: ImageRef) -> ImageRef:
        """The same image as a file of the stage."""
        look = self.look(ref)
        path = f"{IMAGES}/{look.sha256[:2]}/{look.sha256}{look.suffix}"
        if not any((place / path).exists() for place in self._places):
            with replacing(self._places[-1] / path) as partial:
                partial.write_bytes(image_bytes(ref, self._root))
        return ImageRef(path=path)
