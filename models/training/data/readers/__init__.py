"""Reads published preference sets, as downloaded, and our own record files.

::

    hf download --repo-type dataset openbmb/RLAIF-V-Dataset --local-dir rlaif-v

Nothing here goes to the network. Every row is either a record or a `Drop` with
the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.training.data.drops import Drop, DropReason
from models.training.data.files import RecordsInvalid, record_of
from models.training.data.readers import llava_critic
from models.training.data.readers.chosen_rejected import parse_rlaif_v, parse_sharegpt
from models.training.data.readers.pair import Fields, NotAPair, Pair, relocated
from models.training.data.records import PreferenceRecord
from models.training.data.rows import SUFFIXES, Problem, Row, read_rows

__all__ = ["FORMATS", "SourceFormat", "licence_of", "read_source", "source_files"]

_NO_RECORDS = ("dataset_info.json", "dataset_infos.json", "state.json")
_NO_RECORDS_ENDINGS = (".card.json", ".drops.jsonl")


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """How a set is read.

    Attributes:
        data_set: its name on the hub; empty for our own files.
        licence: as published.
        parse: a row's pair; None for our own files, whose rows are records.
    """

    data_set: str
    licence: str
    parse: Callable[[Fields], Pair] | None


FORMATS = {
    "llava-critic": SourceFormat("lmms-lab/llava-critic-113k", "Apache-2.0", llava_critic.parse),
    "rlaif-v": SourceFormat("openbmb/RLAIF-V-Dataset", "CC-BY-NC-4.0", parse_rlaif_v),
    "rlhf-v": SourceFormat("llamafactory/RLHF-V", "CC-BY-NC-4.0", parse_sharegpt),
    "mmif": SourceFormat("ChrisDing1105/MMIF-23k", "unknown", parse_sharegpt),
    "records": SourceFormat("", "that of its sources", None),
}
"""By the name under which a recipe asks for them."""


def licence_of(data_set: str) -> str:
    """As published; of a set that is not known here, ``unknown``."""
    found = (one.licence for one in FORMATS.values() if one.data_set == data_set)
    return next(found, "unknown")


def source_files(path: Path) -> list[Path]:
    """The files that hold rows, in a fixed order; what starts with a dot is skipped.

    Raises:
        RecordsInvalid: there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RecordsInvalid(f"{path}: no such file or folder")
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.name not in _NO_RECORDS
        and not file.name.endswith(_NO_RECORDS_ENDINGS)
    ]
    if not found:
        raise RecordsInvalid(f"{path}: holds no {', '.join(SUFFIXES)} file")
    return found


def read_source(format_name: str, path: Path) -> Iterator[PreferenceRecord | Drop]:
    """Reads a file or folder of one of `FORMATS`.

    Records come in the order that the source gives, the better response where
    the source puts it; paths of images are relative to `path`, or to the folder
    of `path` when it is a file.

    Raises:
        RecordsInvalid: no such format, or no such file.
    """
    if format_name not in FORMATS:
        raise RecordsInvalid(f"no format {format_name!r}: one of {', '.join(FORMATS)}")
    root = path if path.is_dir() else path.parent
    seen: set[str] = set()
    for file in source_files(path):
        inside = PurePosixPath(file.relative_to(root).as_posix())
        for row in read_rows(file):
            where = f"{inside}:{row.number}"
            if isinstance(row, Problem):
                yield Drop(id=where, reason=DropReason.UNREADABLE, detail=row.reason)
                continue
            found = _outcome(format_name, row, where, inside.parent)
            if isinstance(found, PreferenceRecord):
                if found.id in seen:
                    found = Drop(id=where, reason=DropReason.REPEATED_ID, duplicate_of=found.id)
                else:
                    seen.add(found.id)
            yield found


def _outcome(
    format_name: str, row: Row, where: str, folder: PurePosixPath
) -> PreferenceRecord | Drop:
    source = FORMATS[format_name]
    try:
        if source.parse is None:
            record = record_of(row.fields, PreferenceRecord)
            images = tuple(relocated(ref, folder) for ref in record.images)
            return record.model_copy(update={"images": images})
        return source.parse(row.fields).record(source.data_set, format_name, folder)
    except NotAPair as cause:
        return Drop(id=where, reason=cause.reason, detail=str(cause))
    except ValueError as cause:
        return Drop(id=where, reason=DropReason.MALFORMED, detail=str(cause))
