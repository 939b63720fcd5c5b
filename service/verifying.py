"""Rubrics to opinions: would an evaluator who has nothing but the rubric agree?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from models.comparison import Position
from service.calls import Call, Calls, Timing
from service.errors import InvalidRequest
from service.evaluators import Opinion, Roster
from service.metrics import Metrics
from service.settings import JudgingSettings


@dataclass(frozen=True, slots=True)
class Verified:
    """An opinion and what it cost.

    Attributes:
        reward: +1 when the opinion is the label, -1 when it is not; None without
            a label or an opinion.
    """

    opinion: Opinion
    reward: float | None
    timing: Timing


class Verifying:
    """Answers calls with an evaluator of the roster."""

    def __init__(
        self, roster: Roster, calls: Calls, metrics: Metrics, settings: JudgingSettings
    ) -> None:
        self._roster = roster
        self._calls = calls
        self._metrics = metrics
        self._least_mass = settings.label_mass

    async def verify(
        self, call: Call, label: Position | None = None, name: str = "proxy"
    ) -> Verified:
        """Has an evaluator judge a comparison, in the given order, by the given rubric alone.

        Args:
            call: with a rubric.
            label: the response that is known to be better.
            name: which evaluator.

        Raises:
            NotFound: no evaluator has that name here.
            ServiceError: any other; see `service.errors`.
        """
        evaluator = self._roster.named(name)
        if call.rubric is None:
            raise InvalidRequest("rubric: there is nothing to judge by")
        async with self._calls.admitted(call) as timing:
            rubric = await self._calls.rubric(call.rubric)
            comparison = await self._calls.comparison(call, timing)
            began = time.monotonic()
            opinion = await evaluator.evaluate(comparison, rubric, call.options.priority)
            timing.engine_s = time.monotonic() - began
        self._count(opinion)
        return Verified(opinion, _reward(opinion, label), timing)

    def _count(self, opinion: Opinion) -> None:
        self._metrics.injection_attempts.inc(opinion.injection_attempts)
        if opinion.reason is not None:
            self._metrics.abstentions.labels(opinion.reason).inc()
        self._metrics.saw_label_mass("evaluator", [opinion.label_mass], self._least_mass)


def _reward(opinion: Opinion, label: Position | None) -> float | None:
    if label is None or opinion.preferred is None:
        return None
    return 1.0 if opinion.preferred == label else -1.0
