"""Comparisons to judgements: cache, judge, and what is counted."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from models.release import Release
from service.calls import Call, Calls, Timing
from service.judging import Judge, Judgement, Usage, WrittenRubric
from service.metrics import Metrics
from service.store import Store, judgement_key

_JUDGEMENT = TypeAdapter(Judgement)


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
        self, release: Release, judge: Judge, calls: Calls, store: Store, metrics: Metrics
    ) -> None:
        self._release = release
        self._judge = judge
        self._calls = calls
        self._store = store
        self._metrics = metrics

    async def score(self, call: Call) -> Scored:
        """Judges a comparison.

        Raises:
            ServiceError: any of them; see `service.errors`.
        """
        async with self._calls.admitted(call) as timing:
            rubric = await self._calls.rubric(call.rubric) if call.rubric is not None else None
            comparison = await self._calls.comparison(call, timing)
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
        async with self._calls.admitted(call) as timing:
            comparison = await self._calls.comparison(call, timing)
            began = time.monotonic()
            written = await self._judge.write_rubric(comparison, call.options)
            timing.engine_s = time.monotonic() - began
            if written.rubric is not None:
                await self._store.keep_rubric(written.rubric)
        self._metrics.injection_attempts.inc(written.injection_attempts)
        if written.reason is not None:
            self._metrics.abstentions.labels(written.reason).inc()
        return RubricWritten(written, timing)

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
