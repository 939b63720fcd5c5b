"""N responses to a ranking: one rubric for all, then comparisons of two."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

from models.comparison import Comparison
from models.rubric import Rubric
from service.calls import Call, Calls, Timing
from service.judging import AbstentionReason, Judgement, Usage
from service.judging.ranking import Ranking, RankingOptions, rank
from service.scoring import Scoring
from service.store import RubricRecord

_AT_ONCE = 32
"""Comparisons of one ranking in the engine; it holds one place in the queue for all of them."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking and what it cost; without a rubric to judge by there is a reason instead.

    Attributes:
        usage: of the rubric and all comparisons.
        record: of the rubric.
    """

    ranking: Ranking | None
    reason: AbstentionReason | None
    rubric: Rubric | None
    usage: Usage
    timing: Timing
    record: RubricRecord | None = None


class Rankings:
    """Answers calls with many responses."""

    def __init__(self, calls: Calls, scoring: Scoring) -> None:
        self._calls = calls
        self._scoring = scoring

    async def rank(self, call: Call, options: RankingOptions) -> Ranked:
        """Ranks a call's responses.

        Without a given rubric the judge writes one about the first two that differ, and all
        comparisons are judged by it; a judge that writes none judges them without.

        Raises:
            ServiceError: any of them; see `service.errors`.
        """
        async with self._calls.admitted(call) as timing:
            rubric = await self._calls.rubric(call.rubric) if call.rubric is not None else None
            comparison = await self._calls.comparison(call, timing)
            began = time.monotonic()
            usage, reason = Usage(), None
            if rubric is None and self._scoring.writes_rubric:
                written = await self._scoring.rubric_for(_of_two_texts(comparison, call), call)
                rubric, reason, usage = written.rubric, written.reason, written.usage
            found = None
            if reason is None:
                work = _Work(self._scoring, comparison, call, rubric)
                found = await rank(call.responses, work.compare, options)
                usage += work.usage
            timing.engine_s = time.monotonic() - began
            record = await self._scoring.record(rubric)
        return Ranked(found, reason, rubric, usage, timing, record)


class _Work:
    """The comparisons of one ranking."""

    def __init__(
        self, scoring: Scoring, asked: Comparison, call: Call, rubric: Rubric | None
    ) -> None:
        self._scoring, self._asked, self._call, self._rubric = scoring, asked, call, rubric
        self._places = asyncio.Semaphore(_AT_ONCE)
        self.usage = Usage()

    async def compare(self, first: int, second: int) -> float | None:
        responses = self._call.responses
        comparison = replace(self._asked, responses=(responses[first], responses[second]))
        async with self._places:
            judgement: Judgement
            judgement, _ = await self._scoring.judge(comparison, self._call, self._rubric)
        self.usage += judgement.usage
        return judgement.probability


def _of_two_texts(comparison: Comparison, call: Call) -> Comparison:
    """The comparison of the first two responses that differ, where any do."""
    first = call.responses[0]
    other = next((text for text in call.responses if text != first), call.responses[1])
    return replace(comparison, responses=(first, other))
