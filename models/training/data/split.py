"""Judged pairs into the four training sets of the paper.

Pairs whose teacher verdict is the label (`correct`) teach by example; the others
(`hard`) are left for reinforcement. The proxy and the GRM should not have seen
the same pictures: an agreement from memory says nothing about a rubric.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.training.data.card import Card, FileEntry, Observer, SourceEntry, write_card
from models.training.data.drops import counted
from models.training.data.files import RecordsInvalid, read_records, write_records
from models.training.data.filters import Difficulty, DifficultyOptions, apply
from models.training.data.readers import licence_of
from models.training.data.records import ImageRef, JudgedRecord

_MOST_LOST = 0.05
"""Share of a set that may be left out to keep pictures apart; beyond it they are shared."""

SPLITS = ("proxy_sft", "proxy_rl", "grm_sft", "grm_rl")
"""In this order; the first two train the proxy."""


class Budget(BaseModel):
    """How many pairs each training stage takes; by default those of the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    proxy_sft: int = Field(default=5_000, ge=0, description="of the correct ones")
    proxy_rl: int = Field(default=10_000, ge=0, description="of the correct ones")
    grm_sft: int = Field(default=10_000, ge=0, description="of the correct ones")
    grm_rl: int = Field(default=35_000, ge=0, description="of the hard ones")


class SplitOptions(BaseModel):
    """How a judged file is divided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judged: Path = Field(description="record file; the sets are written beside it")
    budget: Budget = Budget()
    seed: int = 0
    difficulty: DifficultyOptions = DifficultyOptions()


@dataclass(frozen=True, slots=True)
class Splits:
    """The sets and what became of the rest.

    Attributes:
        sets: by the names of `SPLITS`; no record is in two.
        left_over: how many are in none: beyond the budget, or in the way of keeping pictures apart.
        shared_images: pictures that both the proxy's and the GRM's sets show.
        notes: what a reader of the sets has to know.
    """

    sets: dict[str, list[JudgedRecord]]
    left_over: int
    shared_images: int
    notes: list[str]


def split(records: Iterable[JudgedRecord], budget: Budget, seed: int) -> Splits:
    """Divides judged records; where there are too few, in the proportions of the budget.

    The division depends on the seed and the records, not on their order. Of
    records with the same id the first is taken. Pictures are told apart by
    content when they are inline, else by path.
    """
    distinct: dict[str, JudgedRecord] = {}
    given = 0
    for record in records:
        given += 1
        distinct.setdefault(record.id, record)
    groups = _by_picture(distinct.values(), seed)
    # Groups without hard pairs come first, and the proxy takes from the front: the
    # GRM meets hard pairs in the others.
    groups.sort(key=lambda group: any(not one.teacher_is_right for one in group))
    correct = [[one for one in group if one.teacher_is_right] for group in groups]
    sizes, notes = _scaled(budget, sum(map(len, correct)))
    sets = _correct_sets(correct, sizes)

    proxy_images = _images([*sets["proxy_sft"], *sets["proxy_rl"]])
    hard = [one for group in groups for one in group if not one.teacher_is_right]
    hard = _shuffled(hard, seed)
    hard.sort(key=lambda one: not proxy_images.isdisjoint(_images([one])))
    sets["grm_rl"] = hard[: budget.grm_rl]
    if len(hard) < budget.grm_rl:
        notes.append(f"{len(hard)} hard pairs for a budget of {budget.grm_rl}: all are taken")

    shared = len(proxy_images & _images([*sets["grm_sft"], *sets["grm_rl"]]))
    if shared:
        notes.append(f"{shared} images are in sets of the proxy and of the GRM")
    if given > len(distinct):
        notes.append(f"{given - len(distinct)} records with an id that was there already left out")
    sets = {name: _shuffled(sets[name], seed) for name in SPLITS}
    return Splits(sets, len(distinct) - sum(map(len, sets.values())), shared, notes)


def split_file(options: SplitOptions, *, command: str = "") -> Splits:
    """Divides a judged record file into four of its format beside it, each with a card.

    They lie in the same folder because image paths are relative to it. Bad lines
    are left out and noted. Run again, it gives the same bytes.

    Args:
        options: what to divide and how.
        command: as the user gave it, for the cards.

    Raises:
        RecordsInvalid: the file is not there, has the wrong ending, or no judged record in it.
    """
    judged, problems = options.judged, list[str]()
    if not judged.is_file():
        raise RecordsInvalid(f"{judged}: no such file: run distil first")
    records = read_records(judged, JudgedRecord, lambda problem: problems.append(str(problem)))
    filtered = apply(records, [Difficulty(options.difficulty)])
    if not filtered.kept:
        raise RecordsInvalid(
            f"{judged}: no judged record is left to divide; bad lines: {len(problems)}"
            f"{', the first: ' + problems[0] if problems else ''}; filtered: {len(filtered.drops)}"
        )
    splits = split(filtered.kept, options.budget, options.seed)
    if problems:
        splits.notes.append(f"{len(problems)} bad lines left out, the first: {problems[0]}")
    dropped = counted(drop.reason for drop in filtered.drops)
    given = len(filtered.kept) + len(filtered.drops)
    read = FileEntry.of(judged)
    for name, records in splits.sets.items():
        file, observer = judged.with_name(name + judged.suffix), Observer()
        write_records(file, observer.watch(records), JudgedRecord)
        source = SourceEntry(
            name="records",
            data_set=judged.name,
            licence=", ".join(sorted({licence_of(one) for one in observer.by_source})),
            rows=given + len(problems),
            records=given,
            dropped={"unreadable": len(problems)} if problems else {},
            kept=len(records),
            files=[read],
        )
        card = Card(
            title=f"Training set {name}",
            fingerprint=read.sha256,
            command=command,
            options=options.model_dump(mode="json"),
            sources=[source],
            filtered=dropped,
            statistics=observer.statistics(),
            files=[FileEntry.of(file)],
            notes=splits.notes,
        )
        write_card(file, card)
    return splits


def _scaled(budget: Budget, available: int) -> tuple[tuple[int, int, int], list[str]]:
    """Sizes of the three sets of correct pairs."""
    wanted = (budget.proxy_sft, budget.proxy_rl, budget.grm_sft)
    if available >= sum(wanted):
        return wanted, []
    shares = [divmod(size * available, sum(wanted)) for size in wanted]
    left = available - sum(whole for whole, _ in shares)
    # What is left after rounding down goes to those that lost most by it: none gets above budget.
    more = sorted(range(3), key=lambda n: -shares[n][1])[:left]
    first, second, third = (whole + (n in more) for n, (whole, _) in enumerate(shares))
    sizes = (first, second, third)
    told = ", ".join(f"{name} {size}" for name, size in zip(SPLITS, sizes, strict=False))
    return sizes, [
        f"{available} correct pairs for a budget of {sum(wanted)}: scaled down to {told}"
    ]


def _correct_sets(
    groups: Sequence[Sequence[JudgedRecord]], sizes: tuple[int, int, int]
) -> dict[str, list[JudgedRecord]]:
    """The proxy takes from the front and the GRM from the back, whole groups where possible."""
    records = [one for group in groups for one in group]
    group_of = [number for number, group in enumerate(groups) for _ in group]
    proxy_end, grm_start = sizes[0] + sizes[1], len(records) - sizes[2]
    if proxy_end > 0 and grm_start < len(records):
        torn = group_of[grm_start]
        if group_of[proxy_end - 1] == torn:
            group_start, group_end = group_of.index(torn), grm_start
            while group_end < len(records) and group_of[group_end] == torn:
                group_end += 1
            proxy_loss = (proxy_end - group_start) / proxy_end
            grm_loss = (group_end - grm_start) / sizes[2]
            if min(proxy_loss, grm_loss) > _MOST_LOST:
                pass
            elif proxy_loss <= grm_loss:
                proxy_end = group_start
            else:
                grm_start = group_end
    sft_end = min(sizes[0], proxy_end)
    return {
        "proxy_sft": records[:sft_end],
        "proxy_rl": records[sft_end:proxy_end],
        "grm_sft": records[grm_start:],
    }


def _by_picture(records: Iterable[JudgedRecord], seed: int) -> list[list[JudgedRecord]]:
    """Groups that share no picture with one another, in an order that the seed decides."""
    parent: dict[str, str] = {}

    def root(of: str) -> str:
        while parent.setdefault(of, of) != of:
            parent[of] = of = parent[parent[of]]
        return of

    shuffled = _shuffled(records, seed)
    names = [[f"record {one.id}", *_images([one])] for one in shuffled]
    for first, *others in names:
        for other in others:
            parent[root(other)] = root(first)
    groups: defaultdict[str, list[JudgedRecord]] = defaultdict(list)
    for record, (first, *_) in zip(shuffled, names, strict=True):
        groups[root(first)].append(record)
    return list(groups.values())


def _shuffled(records: Iterable[JudgedRecord], seed: int) -> list[JudgedRecord]:
    return sorted(
        records, key=lambda one: (random.Random(f"{seed}/split/{one.id}").random(), one.id)
    )


def _images(records: Iterable[JudgedRecord]) -> set[str]:
    return {_identity(ref) for record in records for ref in record.images}


def _identity(ref: ImageRef) -> str:
    if ref.path is not None:
        return f"file {ref.path}"
    return hashlib.sha256((ref.data or "").encode()).hexdigest()
