"""Comparisons to judgements: cache, judge, and what is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial

from pydantic import TypeAdapter, ValidationError

from models.comparison import Comparison, Position
from models.release import Release
from models.rubric import Rubric
from service.calls import Call, Calls, Timing
from service.consulting import Consulting, heard_by
from service.flights import Flights
from service.honesty import Honesty
from service.judging import (
    Escalation,
    Judge,
    Judgement,
    PanelVerdict,
    Usage,
    Voice,
    WrittenRubric,
)
from service.metrics import Metrics
from service.rubric_gate import Attempt, Gated, RubricGate
from service.settings import JudgingSettings
from service.store import RubricRecord, Store, flight_key, judgement_key

_JUDGEMENT = TypeAdapter(Judgement)
_SAMPLED = ("voted", "undecided", "evaluator")
"""Judgements that stopped so would come out otherwise another time: they are not kept."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A judgement and what it cost; from the cache it cost no tokens.

    Attributes:
        voices: of the evaluators that were asked, in that order.
        panel: what they and the judge come to; None where none of them had an opinion.
        record: of the rubric.
        own: the judge's own verdict, also where a stronger evaluator decided.
        gated: how the rubric gate came to it; None where there was none.
        least_mass: on the two labels, below which a verdict is to be looked at.
    """

    judgement: Judgement
    timing: Timing
    cached: bool
    voices: tuple[Voice, ...] = ()
    panel: PanelVerdict | None = None
    record: RubricRecord | None = None
    own: Position | None = None
    gated: Gated | None = None
    least_mass: float = 0.0

    @property
    def low_label_mass(self) -> bool:
        """Whether a pass of the judge had something else than a verdict in mind."""
        masses = [found.label_mass for found in self.judgement.passes]
        return any(mass is not None and mass < self.least_mass for mass in masses)


@dataclass(frozen=True, slots=True)
class RubricWritten:
    """A rubric and what it cost.

    Attributes:
        voices: of the evaluators that were asked, in that order.
        record: of the rubric.
    """

    written: WrittenRubric
    timing: Timing
    voices: tuple[Voice, ...] = ()
    record: RubricRecord | None = None


class Scoring:
    """Answers calls with a release's judge.

    Args:
        settings: of orders, label mass and the rubric gate.
    """

    def __init__(
        self,
        release: Release,
        judge: Judge,
        consulting: Consulting,
        calls: Calls,
        store: Store,
        flights: Flights,
        honesty: Honesty,
        metrics: Metrics,
        settings: JudgingSettings,
    ) -> None:
        self._release = release
        self._settings = settings
        self._judge = judge
        self._consulting = consulting
        self._calls = calls
        self._store = store
        self._flights = flights
        self._honesty = honesty
        self._metrics = metrics
        self._gate = RubricGate(settings.gate, metrics)

    @property
    def writes_rubric(self) -> bool:
        """Whether the judge writes a rubric where none is given."""
        return self._judge.writes_rubric

    async def score(self, call: Call) -> Scored:
        """Judges a comparison; then each evaluator says what it makes of it by the rubric.

        Raises:
            ServiceError: any of them; see `service.errors`.
        """
        self._consulting.check(call)
        most = self._gate.attempts(call)
        async with self._calls.admitted(call) as timing:
            rubric = await self._calls.rubric(call.rubric) if call.rubric is not None else None
            comparison = await self._calls.comparison(call, timing)

            async def attempt(drafting: Call) -> Attempt:
                return await self._settled(comparison, drafting, rubric, timing)

            gated = await self._gate.through(call, attempt, timing.began + call.timeout_s)
        settled = gated.taken.settled
        self._honesty.saw(comparison, settled.judgement, call.run_id)
        self._count(settled.judgement)
        return Scored(
            settled.judgement,
            timing,
            gated.taken.cached and len(gated.attempts) == 1,
            settled.voices,
            settled.panel,
            settled.record,
            gated.taken.preferred,
            gated if most > 1 else None,
            self._settings.label_mass,
        )

    async def _settled(
        self, comparison: Comparison, call: Call, rubric: Rubric | None, timing: Timing
    ) -> Attempt:
        """One judgement, and what the evaluators that the call names make of it."""
        began = time.monotonic()
        judgement, cached = await self._judged(comparison, call, rubric)
        timing.engine_s += 0.0 if cached else time.monotonic() - began
        settled = await self._consulting.settle(call, comparison, judgement, timing)
        return Attempt.of(settled, judgement.preferred, call.evaluators, cached=cached)

    async def judge(
        self, comparison: Comparison, call: Call, rubric: Rubric | None
    ) -> tuple[Judgement, bool]:
        """Judges one comparison of an admitted call; and says whether it was kept from before.

        Raises:
            EngineUnavailable, ContextExceeded: see `service.errors`.
        """
        judgement, cached = await self._judged(comparison, call, rubric)
        self._honesty.saw(comparison, judgement, call.run_id)
        self._count(judgement)
        return judgement, cached

    async def _judged(
        self, comparison: Comparison, call: Call, rubric: Rubric | None
    ) -> tuple[Judgement, bool]:
        asked = self._settings.escalation
        escalation = Escalation(asked.band, asked.votes, asked.temperature)
        options = replace(call.options, band=self._settings.band, escalation=escalation)
        key = judgement_key(self._release.fingerprint, comparison, options, rubric)

        async def make() -> Judgement:
            made = await self._judge.judge(comparison, options, rubric)
            await self._keep(key, made)
            return made

        if key is None or not call.use_cache:
            judgement, cached = await make(), False
        else:
            judgement, cached = await self._once(key, flight_key(key, options), make)
        if cached:
            judgement = replace(judgement, usage=Usage())
        else:
            masses = [found.label_mass for found in judgement.passes]
            self._metrics.saw_label_mass("judge", masses, self._settings.label_mass)
            given = rubric if call.rubric is not None else None
            self._honesty.probe(comparison, judgement, given, options, call.run_id)
        return judgement, cached

    async def _once(
        self, key: str, flight: str, make: Callable[[], Coroutine[None, None, Judgement]]
    ) -> tuple[Judgement, bool]:
        """The judgement that is kept, that somebody is making right now, or that `make` makes."""
        kept = await self._kept(key)
        if kept is not None:
            return kept, True
        kept_meanwhile = partial(self._kept, key, counted=False)
        judgement, made = await self._flights.run(flight, kept_meanwhile, make)
        return judgement, not made

    async def write_rubric(self, call: Call, label: int | None = None) -> RubricWritten:
        """Writes a rubric for a comparison, keeps it under its id, and asks the evaluators.

        Args:
            call: the comparison.
            label: the response that is known to be better, for the rubric's record.

        Raises:
            ServiceError: any of them; see `service.errors`.
        """
        self._consulting.check(call)
        async with self._calls.admitted(call) as timing:
            comparison = await self._calls.comparison(call, timing)
            began = time.monotonic()
            written = await self.rubric_for(comparison, call)
            timing.engine_s = time.monotonic() - began
            ends = heard_by(call, timing)
            voices = await self._consulting.voices(call, comparison, written.rubric, ends)
            record = await self._consulting.record(written.rubric, comparison, voices, label)
        return RubricWritten(written, timing, voices, record)

    async def rubric_for(self, comparison: Comparison, call: Call) -> WrittenRubric:
        """Writes a rubric for one comparison of an admitted call and keeps it.

        Raises:
            EngineUnavailable, ContextExceeded: see `service.errors`.
        """
        written = await self._judge.write_rubric(comparison, call.options)
        if written.rubric is not None:
            await self._store.keep_rubric(written.rubric)
        self._metrics.injection_attempts.inc(written.injection_attempts)
        if written.reason is not None:
            self._metrics.abstentions.labels(written.reason).inc()
        return written

    async def _kept(self, key: str, *, counted: bool = True) -> Judgement | None:
        kept = await self._store.judgement(key, counted=counted)
        try:
            return _JUDGEMENT.validate_python(kept) if kept is not None else None
        except ValidationError:  # written by another version of this service
            return None

    async def _keep(self, key: str | None, judgement: Judgement) -> None:
        if judgement.rubric is not None:
            await self._store.keep_rubric(judgement.rubric)
        if key is not None and judgement.reason is None and judgement.stopped not in _SAMPLED:
            await self._store.keep_judgement(key, _JUDGEMENT.dump_python(judgement, mode="json"))

    def _count(self, judgement: Judgement) -> None:
        self._metrics.injection_attempts.inc(judgement.injection_attempts)
        if judgement.reason is not None:
            self._metrics.abstentions.labels(judgement.reason).inc()
