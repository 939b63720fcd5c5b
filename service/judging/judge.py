"""The judge: one comparison in, one judgement out, by as many passes as the options ask for."""

from __future__ import annotations

import itertools
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
        adaptive = options.order == "adaptive"
        first = await self._reader.read(comparison, "given", options, rubric, early=adaptive)
        shared = rubric or first.rubric
        if shared is None and self._reader.writes_rubric:
            return summed_up([first], options, None)
        orders: tuple[Order, ...] = ("given", "swapped")
        if options.order == "given" or (adaptive and _is_sure(first, options)):
            orders = ("given",)
        turns = list(itertools.product(orders, range(options.votes)))[1:]
        passes = await together(
            self._reader.read(comparison, order, replace(options, seed=options.seed + vote), shared)
            for order, vote in turns
        )
        return summed_up([first, *passes], options, shared)

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
