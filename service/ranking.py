"""N responses to a ranking: one rubric for all, then comparisons of two."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, replace

from models.comparison import Comparison
from models.rubric import Rubric
from service.calls import Call, Calls, Timing
from service.concurrency import together
from service.consulting import Consulting, heard_by
from service.judging import AbstentionReason, Judgement, Usage, Voice, panel_verdict
from service.judging.ranking import Met, Ranking, RankingOptions, rank, ranking_of
from service.scoring import Scoring
from service.store import RubricRecord

_AT_ONCE = 32
"""Comparisons of one ranking in the engine; it holds one place in the queue for all of them."""


@dataclass(frozen=True, slots=True)
class Panel:
    """What evaluators make of the comparisons of a ranking, by its rubric alone.

    Attributes:
        voices: of each comparison, in the order of asking.
        ranking: by what judge and evaluators come to in each comparison.
    """

    voices: tuple[tuple[Voice, ...], ...]
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking and what it cost.

    Attributes:
        ranking: None where there was no rubric to judge by.
        reason: why nothing is known: no rubric, or not one comparison that could be read.
        usage: the judge's, of the rubric and all comparisons.
        record: of the rubric.
        panel: None where no evaluator had an opinion.
    """

    ranking: Ranking | None
    reason: AbstentionReason | None
    rubric: Rubric | None
    usage: Usage
    timing: Timing
    record: RubricRecord | None = None
    panel: Panel | None = None


class Rankings:
    """Answers calls with many responses."""

    def __init__(self, calls: Calls, scoring: Scoring, consulting: Consulting) -> None:
        self._calls = calls
        self._scoring = scoring
        self._consulting = consulting

    async def rank(self, call: Call, options: RankingOptions) -> Ranked:
        """Ranks a call's responses.

        Without a given rubric the judge writes one about the first two that differ, and all
        comparisons are judged by it; a judge that writes none judges them without. The evaluators
        that the call names are then asked about the same comparisons, all in what is left of its
        time: they change nothing about the ranking, and cannot make it late.

        Raises:
            ServiceError: any of them; see `service.errors`.
        """
        self._consulting.check(call)
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
                if len(found.unread) == len(call.responses):
                    ((reason, _),) = work.abstentions.most_common(1)
            timing.engine_s = time.monotonic() - began
            panel = None
            if found is not None and rubric is not None and call.evaluators:
                panel = await self._panel(call, comparison, rubric, found, timing)
            record = await self._consulting.record(rubric, comparison)
        return Ranked(found, reason, rubric, usage, timing, record, panel)

    async def _panel(
        self, call: Call, asked: Comparison, rubric: Rubric, found: Ranking, timing: Timing
    ) -> Panel:
        """The evaluators on each comparison that was made."""
        places = asyncio.Semaphore(_AT_ONCE)
        ends = heard_by(call, timing)  # one for all, or the last would have no time left

        async def hear(one: Met) -> tuple[Voice, ...]:
            comparison = _of(asked, call, one.first, one.second)
            async with places:
                voices = await self._consulting.voices(call, comparison, rubric, ends)
            if any(voice.opinion.status == "ok" for voice in voices):
                await self._consulting.record(rubric, comparison, voices, one.preferred)
            return voices

        voices = await together(hear(one) for one in found.met)
        met = [
            replace(one, probability=verdict.probability if verdict is not None else None)
            for one, said in zip(found.met, voices, strict=True)
            for verdict in [panel_verdict(said, one.probability)]
        ]
        return Panel(tuple(voices), ranking_of(call.responses, met, found.stopped))


class _Work:
    """The comparisons of one ranking."""

    def __init__(
        self, scoring: Scoring, asked: Comparison, call: Call, rubric: Rubric | None
    ) -> None:
        self._scoring, self._asked, self._call, self._rubric = scoring, asked, call, rubric
        self._places = asyncio.Semaphore(_AT_ONCE)
        self.usage = Usage()
        self.abstentions = Counter[AbstentionReason]()

    async def compare(self, first: int, second: int) -> float | None:
        comparison = _of(self._asked, self._call, first, second)
        async with self._places:
            judgement: Judgement
            judgement, _ = await self._scoring.judge(comparison, self._call, self._rubric)
        self.usage += judgement.usage
        if judgement.reason is not None:
            self.abstentions[judgement.reason] += 1
        return judgement.probability


def _of(asked: Comparison, call: Call, first: int, second: int) -> Comparison:
    return replace(asked, responses=(call.responses[first], call.responses[second]))


def _of_two_texts(comparison: Comparison, call: Call) -> Comparison:
    """The comparison of the first two responses that differ, where any do."""
    first = call.responses[0]
    other = next((text for text in call.responses if text != first), call.responses[1])
    return replace(comparison, responses=(first, other))
