"""What jobs are left, as metrics: by it workers are scaled, and people see that a job moves."""

from __future__ import annotations

import asyncio
import math

import structlog

from service.errors import StoreUnavailable
from service.jobs.job_store import JobStore
from service.metrics import Metrics

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 10.0


class JobWatch:
    """Counts jobs and lines without a result, of all tenants, again and again.

    Every gateway tells the same. While Redis does not answer it tells nothing (NaN), for what was
    true a while ago may not be.
    """

    def __init__(
        self, store: JobStore, metrics: Metrics, *, look_every_s: float = _LOOK_EVERY_S
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._look_every_s = look_every_s
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins at once."""
        self._looking = asyncio.create_task(self._look(), name="count jobs")

    async def stop(self) -> None:
        """Ends it."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        jobs: float = 0
        while True:
            try:
                jobs, lines = await self._store.unfinished()
            except StoreUnavailable as error:
                if not math.isnan(jobs):
                    _log.warning("jobs are not counted", reason=error.detail)
                jobs = lines = math.nan
            self._metrics.jobs_unfinished.set(jobs)
            self._metrics.job_lines_unfinished.set(lines)
            await asyncio.sleep(self._look_every_s)
