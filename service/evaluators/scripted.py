"""A deterministic evaluator without a model, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from typing_extensions import override

from models.comparison import Comparison
from models.rubric import Rubric
from service.engines import Priority
from service.evaluators.contract import Evaluator, EvaluatorConfig, Opinion, Surroundings

OpinionScript = Callable[[Comparison, Rubric], Opinion]
"""Called once an opinion; raises what an evaluator may raise, or anything else."""


class ScriptedConfig(EvaluatorConfig):
    """How long an opinion takes."""

    seconds: float = 0.0


class ScriptedEvaluator(Evaluator):
    """Has opinions by a script; by default it is sure that the longer response is better.

    Attributes:
        seconds: how long an opinion takes.
        asked: everything that was put to it, in order of arrival.
        running: opinions in work right now.
        cancelled: opinions whose caller went away.
        closed: whether it gave back what it holds.
    """

    Config = ScriptedConfig

    def __init__(self, script: OpinionScript | None = None, seconds: float = 0.0) -> None:
        self.script = script or _the_longer
        self.seconds = seconds
        self.asked: list[tuple[Comparison, Rubric, Priority]] = []
        self.running = 0
        self.cancelled = 0
        self.closed = False

    @override
    @classmethod
    def build(cls, config: EvaluatorConfig, around: Surroundings) -> Self:
        assert isinstance(config, ScriptedConfig)
        return cls(seconds=config.seconds)

    @override
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        self.asked.append((comparison, rubric, priority))
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
            return self.script(comparison, rubric)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    @override
    async def close(self) -> None:
        self.closed = True


def _the_longer(comparison: Comparison, rubric: Rubric) -> Opinion:
    first, second = comparison.responses
    return Opinion.of(0.9 if len(first) >= len(second) else 0.1)
