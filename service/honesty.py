"""Watching judgements without touching them: counts by run, and probes that look for blindness.

Whatever happens here happens after the judgement is made, in the background. It never delays an
answer and never fails one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import replace

import structlog
from PIL import Image

from models.comparison import Comparison, JudgeImage
from models.rubric import Rubric
from service.errors import ServiceError
from service.judging import Judge, Judgement, JudgingOptions
from service.metrics import Metrics
from service.runs import (
    Counts,
    ProbeOutcome,
    RunRates,
    counts_of,
    counts_of_probe,
    longer_wins,
    rates,
    read_first,
)
from service.settings import HonestySettings
from service.store import Store
from service.tenancy import current_tenant

_log = structlog.get_logger(__name__)

_GREY = (128, 128, 128)
_PROBE_TIMEOUT_S = 600.0
_MOST_RECORDS = 10_000
"""Counts on their way to the store; beyond that it is too slow for them, and they are lost."""


class Honesty:
    """The monitors of one release's judge.

    Args:
        judge: asked again by the probes.
        fingerprint: the release's; counts of another release are kept apart.
    """

    def __init__(
        self,
        judge: Judge,
        fingerprint: str,
        store: Store,
        metrics: Metrics,
        settings: HonestySettings,
    ) -> None:
        self._judge = judge
        self._everything = fingerprint
        self._store = store
        self._metrics = metrics
        self._settings = settings
        self._records: set[asyncio.Task[None]] = set()
        self._probes: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends the probes; what was counted is still written, the store answers quickly or not."""
        for task in self._probes:
            task.cancel()
        await self.settled()

    async def settled(self) -> None:
        """Returns when everything that was seen so far is counted and probed."""
        while tasks := [*self._records, *self._probes]:
            await asyncio.gather(*tasks, return_exceptions=True)

    def saw(self, comparison: Comparison, judgement: Judgement, run_id: str | None) -> None:
        """Counts a judgement."""
        for found in judgement.passes:
            if found.preferred is not None:
                place = "first" if read_first(found) else "second"
                self._metrics.verdicts_by_reading.labels(place).inc()
        longer = longer_wins(comparison, judgement)
        if longer is not None:
            self._metrics.verdicts_by_length.labels("longer" if longer else "shorter").inc()
        self._record(counts_of(comparison, judgement), run_id)

    def probe(
        self,
        comparison: Comparison,
        judgement: Judgement,
        given: Rubric | None,
        options: JudgingOptions,
        run_id: str | None,
    ) -> None:
        """Has a share of the judgements made again with the images blanked, at batch priority.

        The judge writes its rubric anew unless one was given: one that it wrote with the image
        before it may say what the image shows.
        """
        seen = judgement.passes[0].probability
        if not comparison.images or seen is None or random.random() >= self._settings.probe_share:
            return
        if len(self._probes) >= self._settings.probes_at_once:
            self._metrics.probes.labels("skipped").inc()
            return
        blank = replace(
            options, order="given", votes=1, temperature=0.0, priority="batch", drafting=None
        )
        work = self._probed(_blanked(comparison), seen, given, blank, run_id)
        _in_background(self._probes, work)

    async def run(self, run_id: str) -> RunRates | None:
        """What is known of a run; None when nothing of it is kept, or the store is away."""
        counted = await self._store.counts(self._run(run_id))
        if counted is None:
            return None
        return rates(counted, await self._store.counts(self._everything) or {})

    async def _probed(
        self,
        comparison: Comparison,
        seen: float,
        given: Rubric | None,
        options: JudgingOptions,
        run_id: str | None,
    ) -> None:
        outcome: ProbeOutcome
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                blank = (await self._judge.judge(comparison, options, given)).probability
        except (ServiceError, TimeoutError):
            outcome = "failed"
        except Exception:  # a probe's surprise is nobody's but the log's
            _log.exception("probe failed")
            outcome = "failed"
        else:
            outcome, found = counts_of_probe(seen, blank)
            self._record(found, run_id)
            if blank is not None:
                self._metrics.image_reliance.observe(abs(seen - blank))
        self._metrics.probes.labels(outcome).inc()

    def _record(self, counts: Counts, run_id: str | None) -> None:
        if len(self._records) >= _MOST_RECORDS:
            self._metrics.cache.labels("unavailable").inc()
            return
        keys = [self._everything] if run_id is None else [self._everything, self._run(run_id)]
        _in_background(self._records, self._store.add_counts(keys, counts))

    def _run(self, run_id: str) -> str:
        return f"{self._everything}:{current_tenant()}:{run_id}"


def _in_background(tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)  # the loop alone would let it be collected
    task.add_done_callback(tasks.discard)


def _blanked(comparison: Comparison) -> Comparison:
    sizes = [image.pixels.size for image in comparison.images]
    blank = tuple(
        JudgeImage(Image.new("RGB", size, _GREY), f"blank:{size[0]}x{size[1]}") for size in sizes
    )
    return replace(comparison, images=blank)
