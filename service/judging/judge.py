"""The judge: one comparison in, one judgement out, by as many passes as the options ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

from models.calibration import Order
from models.comparison import Comparison
from models.release import Role
from models.rubric import Rubric
from service.concurrency import together
from service.engines import Engine
from service.judging.judgement import Judgement, JudgingOptions, Pass, WrittenRubric
from service.judging.probability import summed_up
from service.judging.reader import Reader


class Judge:
    """A release's judge on an engine."""

    def __init__(self, role: Role, engine: Engine) -> None:
        self._reader = Reader(role, engine)

    async def judge(
        self, comparison: Comparison, options: JudgingOptions, rubric: Rubric | None = None
    ) -> Judgement:
        """Judges a comparison.

        The first pass reads the responses in the given order and, without a
        `rubric`, writes one; the other orders and votes reuse it. A judge that was
        trained to judge without a rubric does so in all of them.

        Raises:
            EngineUnavailable, ContextExceeded: see `service.errors`.
        """
        early = options.order in ("adaptive", "escalate")
        orders: tuple[Order, ...] = ("given",) if options.order == "given" else ("given", "swapped")
        if not early and (rubric is not None or not self._reader.writes_rubric):
            # No pass waits for what another writes.
            turns = itertools.product(orders, range(options.votes))
            passes = await self._pass_each(comparison, options, rubric, turns, None)
            return summed_up(passes, options, rubric)
        first = await self._reader.read(comparison, "given", options, rubric, early=early)
        shared = rubric or first.rubric
        if shared is None and self._reader.writes_rubric:
            return summed_up([first], options, None)
        if early and _is_sure(first, options):
            orders = ("given",)
        turns = list(itertools.product(orders, range(options.votes)))[1:]
        wrote = first.surprisal if rubric is None else None
        passes = [first, *await self._pass_each(comparison, options, shared, turns, wrote)]
        found = summed_up(passes, options, shared)
        if options.order != "escalate" or len(orders) == 1:
            return found
        if _is_decided(found, options):
            return replace(found, stopped="agreed")
        votes = itertools.product(orders, range(1, options.escalation.votes + 1))
        sampled = replace(options, temperature=options.escalation.temperature)
        passes += await self._pass_each(comparison, sampled, shared, votes, wrote)
        found = summed_up(passes, options, shared)
        return replace(found, stopped="voted" if _is_decided(found, options) else "undecided")

    async def _pass_each(
        self,
        comparison: Comparison,
        options: JudgingOptions,
        rubric: Rubric | None,
        turns: Iterable[tuple[Order, int]],
        surprisal: float | None,
    ) -> list[Pass]:
        """All at once; each turn is an order and what to add to the seed."""
        return await together(
            self._reader.read(
                comparison,
                order,
                replace(options, seed=options.seed + vote),
                rubric,
                surprisal=surprisal,
            )
            for order, vote in turns
        )

    @property
    def writes_rubric(self) -> bool:
        """Whether it writes a rubric where none is given."""
        return self._reader.writes_rubric

    async def write_rubric(self, comparison: Comparison, options: JudgingOptions) -> WrittenRubric:
        """Writes a rubric and stops there.

        Raises:
            NotFound: this judge writes none.
            EngineUnavailable, ContextExceeded: see `service.errors`.
        """
        return await self._reader.write_rubric(comparison, options)


def _is_sure(first: Pass, options: JudgingOptions) -> bool:
    """Whether the verdict, read before the evaluation was written, lies outside the band.

    After a written evaluation the verdict token is nearly always certain, whatever the judge
    would make of the swapped order; before it, its probability tells.
    """
    return first.early is not None and abs(first.early - 0.5) >= options.band


def _is_decided(found: Judgement, options: JudgingOptions) -> bool:
    """Whether the passes that were read leave no more doubt than escalation lets stand."""
    band = options.escalation.band
    return found.probability is not None and abs(found.probability - 0.5) >= band
