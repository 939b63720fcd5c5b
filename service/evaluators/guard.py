"""What stands between the gateway and each evaluator: patience, retries, limits, a breaker."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from dataclasses import replace

import structlog
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from models.comparison import Comparison
from models.rubric import Rubric
from service.concurrency import stop_if_cancelled
from service.engines import Priority
from service.errors import ContextExceeded, DeadlineExceeded, EngineUnavailable, ServiceError
from service.evaluators.breaker import Breaker, BreakerState
from service.evaluators.contract import Evaluator, Opinion
from service.metrics import Metrics
from service.settings import EvaluatorSettings

_log = structlog.get_logger(__name__)

_GRACE_S = 0.05
"""How long a cancelled evaluator is waited for; one that has not stopped by then is left behind."""


class GuardedEvaluator:
    """An evaluator that answers in time or not at all, and harms nobody when it does not.

    Args:
        name: the evaluator's, a metric label.
        evaluator: does the work.
        settings: its limits.
        metrics: count how it does.
    """

    def __init__(
        self, name: str, evaluator: Evaluator, settings: EvaluatorSettings, metrics: Metrics
    ) -> None:
        self.name = name
        self.settings = settings
        self._evaluator = evaluator
        self._places = asyncio.Semaphore(settings.concurrency)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
        self._metrics = metrics
        self._left_behind = set[asyncio.Task[Opinion]]()
        metrics.evaluator_open.labels(name).set_function(lambda: self.state != "closed")
        for status in ("ok", "abstain", "timeout", "unavailable"):
            metrics.evaluations.labels(name, status)

    @property
    def state(self) -> BreakerState:
        """The circuit breaker's."""
        return self._breaker.state

    async def evaluate(
        self,
        comparison: Comparison,
        rubric: Rubric,
        priority: Priority = "interactive",
        timeout_s: float = math.inf,
    ) -> Opinion:
        """As `Evaluator.evaluate`; the opinion says how long it took.

        Args:
            comparison: in the given order.
            rubric: all that it is shown besides, without its justification.
            priority: among the requests of its engine.
            timeout_s: at most this long, whatever the settings allow.

        Raises:
            DeadlineExceeded: no opinion within its time, retries and waiting included.
            EngineUnavailable: it failed, or failed so often that it is left alone for now.
            ContextExceeded: comparison and rubric do not fit it.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s if math.isfinite(timeout_s) else None):
                # A justification may name the winner.
                opinion = await self._asked(comparison, Rubric(rubric.text), priority)
        except TimeoutError:
            self._count("timeout")
            raise DeadlineExceeded(f"evaluator {self.name!r} gave no opinion in its time") from None
        except ServiceError as error:
            self._count("timeout" if isinstance(error, DeadlineExceeded) else "unavailable")
            raise
        self._count(opinion.status)
        took = time.monotonic() - began
        self._metrics.evaluator_seconds.labels(self.name).observe(took)
        return replace(opinion, latency_s=took)

    async def close(self) -> None:
        """Gives back what the evaluator holds; what goes wrong there is logged."""
        try:
            await self._evaluator.close()
        except Exception as error:
            _log.warning("evaluator did not close", evaluator=self.name, error=repr(error)[:500])

    async def _asked(self, comparison: Comparison, rubric: Rubric, priority: Priority) -> Opinion:
        """Asks as soon as there is a place, and tells the breaker how it went.

        Neither the caller's own impatience nor waiting for a place counts against the evaluator.
        """
        async with self._places:
            admitted = self._breaker.admit()
            if admitted is None:
                raise EngineUnavailable(
                    f"evaluator {self.name!r} failed {self.settings.breaker_failures} times in a "
                    "row and is left alone for a while",
                    retry_after_s=max(1, math.ceil(self._breaker.left_alone_s)),
                )
            try:
                opinion = await self._bounded(self._retried(comparison, rubric, priority))
            except asyncio.CancelledError:
                self._breaker.given_up(admitted)
                raise
            except ContextExceeded:
                self._breaker.succeeded(admitted)  # it is there; this is too long for it
                raise
            except ServiceError:
                self._breaker.failed(admitted)
                raise
            self._breaker.succeeded(admitted)
            return opinion

    async def _bounded(self, work: Coroutine[None, None, Opinion]) -> Opinion:
        """The error boundary: whatever anybody's code does, it ends in time with a typed error."""
        working = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({working}, timeout=self.settings.timeout_s)
        finally:
            await self._stop(working)
        if not done:
            waited_s = self.settings.timeout_s
            _log.warning("evaluator gave no opinion", evaluator=self.name, waited_s=waited_s)
            raise DeadlineExceeded(f"evaluator {self.name!r} gave no opinion in its time")
        try:
            return _checked(working.result())
        except ContextExceeded:
            raise
        except (Exception, asyncio.CancelledError) as error:  # it may cancel itself
            stop_if_cancelled()
            _log.warning("evaluator failed", evaluator=self.name, error=repr(error)[:500])
            failed = EngineUnavailable(f"evaluator {self.name!r} failed")
            if isinstance(error, EngineUnavailable):
                failed.retry_after_s = error.retry_after_s
            raise failed from error  # what it says itself is for the log alone

    async def _stop(self, working: asyncio.Task[Opinion]) -> None:
        """Cancels what is still running; some code takes no notice of that."""
        if working.done():
            return
        working.cancel()
        await asyncio.wait({working}, timeout=_GRACE_S)
        if not working.done():
            _log.warning("evaluator does not stop", evaluator=self.name)
            self._left_behind.add(working)
            working.add_done_callback(self._forget)

    def _forget(self, finished: asyncio.Task[Opinion]) -> None:
        self._left_behind.discard(finished)
        if not finished.cancelled():
            finished.exception()  # or asyncio says that nobody asked for it

    async def _retried(self, comparison: Comparison, rubric: Rubric, priority: Priority) -> Opinion:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            stop=stop_after_attempt(self.settings.attempts),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        return await attempts(self._evaluator.evaluate, comparison, rubric, priority)

    def _count(self, status: str) -> None:
        self._metrics.evaluations.labels(self.name, status).inc()


def _checked(opinion: Opinion) -> Opinion:
    """The opinion, if it is one: what makes no sense is never a verdict.

    Raises:
        ValueError, TypeError: it is none.
    """
    if not isinstance(opinion, Opinion):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"an evaluator returned {type(opinion).__name__}, which is no Opinion")
    opinion.check()
    return opinion
