"""Distillation: a teacher judges every pair, and what it writes becomes training data.

The teacher is asked with the prompt that serving uses, outside texts neutralised
alike, and never sees the label. Its answers go to a ledger beside the output
(``<output>.ledger``), so that a run that was killed goes on where it was; the
output itself is written at the end, in the order of the input.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field, NonNegativeFloat, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticSerializationError
from rich.console import Console

from models.comparison import Position
from models.pictures import DEFAULT_MOST_PIXELS
from models.prompts import DEFAULT_DIR
from models.training.data.files import write_records
from models.training.data.ledger import (
    ANSWERED,
    DistilInvalid,
    Entry,
    Failure,
    FailureKind,
    Ledger,
    Spent,
    shown_digest,
)
from models.training.data.progress import DistilProgress
from models.training.data.questions import BadImage, LoadImage, Questions
from models.training.data.records import JudgedRecord, PreferenceRecord, TeacherJudgement
from models.training.data.teacher import NoJudgement, Teacher, TeacherOptions, TeacherUnusable


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DistilOptions(TeacherOptions):
    """What to make and how: with those of `TeacherOptions`, everything there is to set."""

    output: Path = Field(
        description=".jsonl or .parquet, in the folder that the image paths are relative to"
    )
    concurrency: int = Field(default=16, ge=1, le=1000, description="records asked about at once")
    samples: int = Field(
        default=1, ge=1, le=64, description="judgements a record; more than one needs a temperature"
    )
    image_pixels: int = Field(
        default=DEFAULT_MOST_PIXELS, ge=784, description="larger images are shrunk"
    )
    prompts_dir: Path = Field(default=DEFAULT_DIR, description="folder of write_rubric.txt")
    tokenizer_dir: Path | None = Field(
        default=None,
        description="folder of the teacher's tokenizer.json, for its control tokens; None: Qwen-VL",
    )
    prompt_price: NonNegativeFloat | None = Field(default=None, description="a million tokens")
    completion_price: NonNegativeFloat | None = Field(default=None, description="a million tokens")
    stop_after: int = Field(
        default=20, ge=1, description="give up when so many records in a row got no answer"
    )
    ask_failed_again: bool = Field(
        default=False,
        description="also those whose answer was no judgement; the others always are",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples need a temperature above 0: they would be the same")
        if (self.prompt_price is None) != (self.completion_price is None):
            raise ValueError("give both prices or neither")
        if self.output.suffix not in (".jsonl", ".parquet"):
            raise ValueError("output ends in .jsonl or .parquet")
        return self

    @property
    def ledger(self) -> Path:
        """Where the answers so far are kept."""
        return self.output.with_name(self.output.name + ".ledger")

    def settings(self) -> dict[str, Any]:
        """What decides an answer. Limits of time and length decide only whether there is one."""
        names = ("model", "temperature", "reask_temperature", "seed", "samples", "extra_body")
        return {name: getattr(self, name) for name in names}

    def cost(self, spent: Spent) -> float | None:
        """In the prices' currency; None without prices."""
        if self.prompt_price is None or self.completion_price is None:
            return None
        prompt = self.prompt_price * spent.prompt_tokens
        return (prompt + self.completion_price * spent.completion_tokens) / 1e6


@dataclass(frozen=True)
class DistilReport:
    """How a distillation ended.

    Attributes:
        total: records given.
        judged: of them, written to the output.
        right: of those, with the label as verdict.
        failures: of the others, by kind.
        spent: by all runs on this output, failed answers included.
        cost: of that, None without prices; too low when `spent.unmetered` is not 0.
    """

    total: int
    judged: int
    right: int
    failures: dict[FailureKind, int]
    spent: Spent
    cost: float | None


async def distil(
    records: Sequence[PreferenceRecord],
    options: DistilOptions,
    load_image: LoadImage,
    console: Console | None = None,
) -> DistilReport:
    """Has the teacher judge each record and writes those it judged to ``options.output``.

    Cancelled or killed, it can be called again with the same options: what the
    teacher has answered is not asked again, what it has not, is. With several samples
    the first readable one is the judgement, and the verdicts of all readable
    ones go to ``meta["teacher_verdicts"]``.

    Args:
        records: in the order in which they are to be judged; run through several times.
        options: see `DistilOptions`.
        load_image: called once for each image.
        console: for progress; by default standard error.

    Raises:
        DistilInvalid: an id stands there twice, a file is in the way, or the ledger
            was begun with other options. Nothing has been asked.
        TeacherUnusable: asking further is pointless. What was answered is kept.
        ReleaseInvalid: the prompt or tokenizer cannot be read.
    """
    _check(records, options.output, options.ledger)
    questions = Questions(
        options.prompts_dir, options.tokenizer_dir, options.image_pixels, load_image
    )
    to_screen = console or Console(stderr=True)
    with (
        Ledger(options.ledger, options.settings() | questions.settings()) as ledger,
        DistilProgress(to_screen, len(records), ledger.spent, options.cost) as progress,
    ):
        if ledger.damaged_lines:
            progress.say(f"{ledger.damaged_lines} damaged lines of {ledger.path} are left out")
        async with Teacher(options, progress.problem) as teacher:
            await _Run(options, questions, teacher, ledger, progress).ask_about(records)
        return _finish(records, options, ledger)


def distil_blocking(
    records: Sequence[PreferenceRecord],
    options: DistilOptions,
    load_image: LoadImage,
    console: Console | None = None,
) -> DistilReport:
    """`distil` where no event loop runs; Ctrl-C ends it as a cancellation would."""
    return asyncio.run(distil(records, options, load_image, console))


class _Run:
    """Asking about many records at once."""

    def __init__(
        self,
        options: DistilOptions,
        questions: Questions,
        teacher: Teacher,
        ledger: Ledger,
        progress: DistilProgress,
    ) -> None:
        self._options, self._questions, self._teacher = options, questions, teacher
        self._ledger, self._progress = ledger, progress
        self._unanswered = 0

    async def ask_about(self, records: Sequence[PreferenceRecord]) -> None:
        """Asks about what is not finished and notes each record as it ends."""
        waiting = iter(self._unfinished(records))

        async def work() -> None:
            for index in waiting:
                entry = await self._entry(records[index])
                self._ledger.append(entry)
                self._progress.finished(entry.failure)
                self._stop_when_pointless(entry.failure)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._options.concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0]  # noqa: B904 - it has its own cause

    def _unfinished(self, records: Sequence[PreferenceRecord]) -> list[int]:
        waiting: list[int] = []
        judged = failed = 0
        for index, record in enumerate(records):
            if self._ledger.is_judged(record):
                judged += 1
            elif self._ledger.failure(record) in ANSWERED and not self._options.ask_failed_again:
                failed += 1
            else:
                waiting.append(index)
        self._progress.finished_before(judged, failed)
        return waiting

    async def _entry(self, record: PreferenceRecord) -> Entry:
        spent = Spent()
        judgement: TeacherJudgement | None = None
        failure: Failure | None = None
        verdicts: list[Position] = []
        try:
            judgements = await self._judgements(record, spent)
            judgement, verdicts = judgements[0], [each.verdict for each in judgements]
        except NoJudgement as no_judgement:
            failure = no_judgement.failure
        except BadImage as cause:
            failure = Failure(kind="bad_image", detail=str(cause))
        return Entry(
            source=record.source,
            id=record.id,
            digest=shown_digest(record),
            judgement=judgement,
            verdicts=tuple(verdicts),
            failure=failure,
            spent=spent,
        )

    async def _judgements(self, record: PreferenceRecord, spent: Spent) -> list[TeacherJudgement]:
        """Those of the readable samples, at least one.

        Raises:
            NoJudgement: no sample is readable; or one got no answer, for then the
                others would pass for all.
        """
        deadline = asyncio.get_running_loop().time() + self._options.deadline_s
        messages = await asyncio.to_thread(self._questions.messages, record)
        judgements: list[TeacherJudgement] = []
        failures: list[NoJudgement] = []
        for sample in range(self._options.samples):
            name = f"{record.source}/{record.id}/{sample}"
            try:
                judgements.append(await self._teacher.judge(messages, name, spent, deadline))
            except NoJudgement as failure:
                if failure.failure.kind not in ANSWERED:
                    raise
                failures.append(failure)
        if not judgements:
            raise failures[0]
        return judgements

    def _stop_when_pointless(self, failure: Failure | None) -> None:
        if failure is None or failure.kind in ANSWERED:
            self._unanswered = 0
        elif failure.kind != "bad_image":
            self._unanswered += 1
        if failure is not None and self._unanswered >= self._options.stop_after:
            raise TeacherUnusable(
                f"{self._options.base_url}: {self._unanswered} records in a row got no answer;"
                f" the last: {failure.kind}, {failure.detail}."
                " What was answered is kept; run again to go on"
            )


def _check(records: Sequence[PreferenceRecord], output: Path, ledger: Path) -> None:
    """Finds before the first request what would otherwise be found after the last."""
    if output.exists() and not ledger.exists():
        raise DistilInvalid(f"{output} is there already and has no ledger: name another output")
    seen: set[tuple[str, str]] = set()
    for record in records:
        if (record.source, record.id) in seen:
            raise DistilInvalid(f"id {record.id!r} stands twice in source {record.source!r}")
        seen.add((record.source, record.id))
        try:
            record.model_dump_json(include={"meta"})
        except PydanticSerializationError as cause:
            raise DistilInvalid(f"meta of {record.id!r} cannot be written: {cause}") from cause


def _finish(
    records: Sequence[PreferenceRecord], options: DistilOptions, ledger: Ledger
) -> DistilReport:
    """Joins records and judgements into the output."""
    right = 0
    failures: Counter[FailureKind] = Counter()

    def judged() -> Iterator[JudgedRecord]:
        nonlocal right
        for record in records:
            entry = ledger.find(record)
            if entry is not None and entry.judgement is not None:
                right += entry.judgement.verdict == record.label
                yield _joined(record, entry, many=options.samples > 1)
            elif entry is not None and entry.failure is not None:
                failures[entry.failure.kind] += 1

    written = write_records(options.output, judged(), JudgedRecord)
    spent = ledger.spent.model_copy()
    return DistilReport(
        total=len(records),
        judged=written,
        right=right,
        failures=dict(failures),
        spent=spent,
        cost=options.cost(spent),
    )


def _joined(record: PreferenceRecord, entry: Entry, *, many: bool) -> JudgedRecord:
    verdicts = {"teacher_verdicts": list(entry.verdicts)} if many else {}
    fields = {name: getattr(record, name) for name in PreferenceRecord.model_fields}
    fields |= {"meta": record.meta | verdicts, "teacher": entry.judgement}
    return JudgedRecord.model_validate(fields)
