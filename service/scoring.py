"""One request from admission to answer: queue, pictures, cache, judge, deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter, ValidationError

from models.comparison import Comparison
from models.release import Release
from models.rubric import Rubric
from service.admission import Admission
from service.concurrency import together
from service.errors import DeadlineExceeded, InvalidRequest, NotFound, PayloadTooLarge
from service.images import Images
from service.judging import Judge, Judgement, JudgingOptions, Usage, WrittenRubric
from service.metrics import Metrics
from service.settings import LimitSettings
from service.store import Store, judgement_key

_JUDGEMENT = TypeAdapter(Judgement)


@dataclass(frozen=True, slots=True)
class GivenRubric:
    """A rubric that came with the request: its text, or the id of one already seen."""

    text: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A comparison as it came in, pictures still encoded.

    Attributes:
        images: base64 or data URIs.
        timeout_s: from now until the answer, waiting included.
    """

    question: str
    responses: tuple[str, str]
    images: tuple[str, ...] = ()
    rubric: GivenRubric | None = None
    options: JudgingOptions = field(default_factory=JudgingOptions)
    timeout_s: float = 120.0
    use_cache: bool = True


@dataclass(slots=True)
class Timing:
    """Seconds spent in each stage."""

    queue_s: float = 0.0
    image_s: float = 0.0
    engine_s: float = 0.0
    total_s: float = 0.0
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Scored:
    """A judgement and what it cost; from the cache it cost no tokens."""

    judgement: Judgement
    timing: Timing
    cached: bool


@dataclass(frozen=True, slots=True)
class RubricWritten:
    """A rubric and what it cost."""

    written: WrittenRubric
    timing: Timing


class Scoring:
    """Answers calls with a release's judge."""

    def __init__(
        self,
        release: Release,
        judge: Judge,
        images: Images,
        store: Store,
        admission: Admission,
        metrics: Metrics,
        limits: LimitSettings,
    ) -> None:
        self._release = release
        self._judge = judge
        self._images = images
        self._store = store
        self._admission = admission
        self._metrics = metrics
        self._limits = limits

    async def score(self, call: Call) -> Scored:
        """Judges a comparison.

        Raises:
            ServiceError: any of them; see `service.errors`.
        """
        async with self._admitted(call) as timing:
            rubric = await self._given(call.rubric)
            comparison = await self._comparison(call, timing)
            key = judgement_key(self._release.fingerprint, comparison, call.options, rubric)
            kept = await self._kept(key) if call.use_cache else None
            if kept is not None:
                judgement = replace(kept, usage=Usage())
            else:
                began = time.monotonic()
                judgement = await self._judge.judge(comparison, call.options, rubric)
                timing.engine_s = time.monotonic() - began
                await self._keep(key, judgement)
        self._count(judgement)
        return Scored(judgement, timing, cached=kept is not None)

    async def write_rubric(self, call: Call) -> RubricWritten:
        """Writes a rubric for a comparison and keeps it under its id.

        Raises:
            ServiceError: any of them; see `service.errors`.
        """
        async with self._admitted(call) as timing:
            comparison = await self._comparison(call, timing)
            began = time.monotonic()
            written = await self._judge.write_rubric(comparison, call.options)
            timing.engine_s = time.monotonic() - began
            if written.rubric is not None:
                await self._store.keep_rubric(written.rubric)
        self._metrics.injection_attempts.inc(written.injection_attempts)
        if written.reason is not None:
            self._metrics.abstentions.labels(written.reason).inc()
        return RubricWritten(written, timing)

    @asynccontextmanager
    async def _admitted(self, call: Call) -> AsyncGenerator[Timing]:
        """Checks what costs nothing, then waits for a place; the deadline covers it all."""
        self._check(call)
        timing = Timing()
        try:
            async with (
                asyncio.timeout(call.timeout_s),
                self._admission.lease(call.options.priority) as queue_s,
            ):
                timing.queue_s = queue_s
                yield timing
        except TimeoutError:
            raise DeadlineExceeded(f"no judgement within {call.timeout_s:g} s") from None
        timing.total_s = time.monotonic() - timing.began
        for stage in ("queue", "image", "engine", "total"):
            self._metrics.stage_seconds.labels(stage).observe(getattr(timing, f"{stage}_s"))

    def _check(self, call: Call) -> None:
        most = self._release.config.images.maximum
        if len(call.images) > most:
            raise InvalidRequest(f"{len(call.images)} images; this release takes at most {most}")
        first, second = call.responses
        given = call.rubric.text if call.rubric is not None else None
        texts = {"question": call.question, "responses[0]": first, "responses[1]": second}
        for name, text in {**texts, "rubric.text": given or ""}.items():
            if len(text) > self._limits.text_characters:
                raise PayloadTooLarge(
                    f"{name} has {len(text)} characters; "
                    f"at most {self._limits.text_characters} are read"
                )

    async def _given(self, given: GivenRubric | None) -> Rubric | None:
        if given is None:
            return None
        if given.text is not None:
            return Rubric(given.text.strip())
        rubric = await self._store.rubric(given.id or "")
        if rubric is None:
            raise NotFound("no rubric with this id is kept here; send its text")
        return rubric

    async def _comparison(self, call: Call, timing: Timing) -> Comparison:
        began = time.monotonic()
        images = await together(self._images.decode(image) for image in call.images)
        timing.image_s = time.monotonic() - began
        return Comparison(call.question, call.responses, tuple(images))

    async def _kept(self, key: str | None) -> Judgement | None:
        kept = await self._store.judgement(key) if key is not None else None
        try:
            return _JUDGEMENT.validate_python(kept) if kept is not None else None
        except ValidationError:  # written by another version of this service
            return None

    async def _keep(self, key: str | None, judgement: Judgement) -> None:
        if judgement.rubric is not None:
            await self._store.keep_rubric(judgement.rubric)
        if key is not None and judgement.reason is None:
            await self._store.keep_judgement(key, _JUDGEMENT.dump_python(judgement, mode="json"))

    def _count(self, judgement: Judgement) -> None:
        self._metrics.injection_attempts.inc(judgement.injection_attempts)
        if judgement.reason is not None:
            self._metrics.abstentions.labels(judgement.reason).inc()
        for found in judgement.passes:
            if found.label_mass is not None:
                self._metrics.label_mass.observe(found.label_mass)
