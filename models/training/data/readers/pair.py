"""What every reader makes of a row: a pair, or the reason why it is none."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from models.comparison import Position
from models.errors import ModelsError
from models.training.data.drops import DropReason
from models.training.data.records import ImageRef, PreferenceRecord

Fields = Mapping[str, Any]

_IMAGE_PLACEHOLDER = "<image>"


class NotAPair(ModelsError):
    """A row gives no record, for this reason."""

    def __init__(self, reason: DropReason, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Pair:
    """What a published row says.

    Attributes:
        images: what its image field holds: a struct of bytes and path, a path, or a list of them.
        responses: in the order of the source.
        meta: kept with the record.
    """

    question: str
    images: Any
    responses: tuple[str, str]
    label: Position
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def record(self, source: str, prefix: str, folder: PurePosixPath) -> PreferenceRecord:
        """The record, outer white space and image placeholders taken off.

        The id is made of what is in the pair, so that it stays when files are
        renamed, sharded anew or read in part; the same pair twice has the same.

        Args:
            source: the data set's name.
            prefix: of the ids.
            folder: where the row's file lies, seen from the folder that was read.

        Raises:
            NotAPair: the question or a response is empty, or the images are of an unknown kind.
        """
        question = self.question.replace(_IMAGE_PLACEHOLDER, "").strip()
        first, second = (response.strip() for response in self.responses)
        if not question:
            raise NotAPair(DropReason.EMPTY_QUESTION)
        if not first or not second:
            raise NotAPair(DropReason.EMPTY_RESPONSE)
        refs = image_refs(self.images)
        said = [question, first, second, *(ref.path or ref.data for ref in refs)]
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:20]
        return PreferenceRecord(
            id=f"{prefix}-{digest}",
            source=source,
            question=question,
            images=tuple(relocated(ref, folder) for ref in refs),
            responses=(first, second),
            label=self.label,
            meta=dict(self.meta),
        )


def image_refs(value: Any) -> tuple[ImageRef, ...]:
    """The images of a row, paths as they stand there.

    Raises:
        NotAPair: the value is no image field of a known kind.
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(ref for one in value for ref in image_refs(one))
    if isinstance(value, dict) and value.get("bytes"):
        if not isinstance(value["bytes"], bytes):
            raise NotAPair(DropReason.MALFORMED, "image.bytes does not hold bytes")
        return (ImageRef(data=base64.b64encode(value["bytes"]).decode()),)
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path:
        raise NotAPair(DropReason.MALFORMED, "an image is neither bytes nor a path")
    return (ImageRef(path=path),)


def relocated(ref: ImageRef, folder: PurePosixPath) -> ImageRef:
    """The same image seen from the folder above; an absolute path or a URL stays, to be refused."""
    if ref.path is None or "://" in ref.path or ref.path.startswith("/"):
        return ref
    return ImageRef(path=str(folder / ref.path))


def text(fields: Fields, name: str) -> str:
    """The text under `name`; a dot goes into a struct, as in ``chosen.value``.

    Raises:
        NotAPair: there is none.
    """
    value: Any = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, str):
        raise NotAPair(DropReason.MALFORMED, f"{name} is not a text")
    return value


def turns(fields: Fields) -> Sequence[Fields]:
    """The turns of ``conversations``.

    Raises:
        NotAPair: there are none.
    """
    value = fields.get("conversations")
    if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
        raise NotAPair(DropReason.MALFORMED, "conversations is not a list of turns")
    return value


def kept(fields: Fields, *names: str) -> dict[str, Any]:
    """Those of the named fields that hold a plain value."""
    return {
        name: fields[name]
        for name in names
        if isinstance(fields.get(name), str | int | float | bool)
    }
