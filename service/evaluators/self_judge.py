"""The judge itself, given a rubric as any other evaluator is."""

from __future__ import annotations

from typing import Literal, Self

from typing_extensions import override

from models.comparison import Comparison
from models.rubric import Rubric
from service.engines import Priority
from service.evaluators.contract import Evaluator, EvaluatorConfig, Opinion, Surroundings
from service.judging import Judge, JudgingOptions


class SelfConfig(EvaluatorConfig):
    """How the judge is asked."""

    depth: Literal["full", "verdict"] = "full"
    order: Literal["given", "both"] = "given"


class SelfEvaluator(Evaluator):
    """Whether the judge, starting anew from its rubric, finds the same response better."""

    Config = SelfConfig

    def __init__(self, judge: Judge, config: SelfConfig) -> None:
        self._judge = judge
        self._config = config

    @override
    @classmethod
    def build(cls, config: EvaluatorConfig, around: Surroundings) -> Self:
        assert isinstance(config, SelfConfig)
        return cls(around.judge, config)

    @override
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        options = JudgingOptions(
            depth=self._config.depth, order=self._config.order, priority=priority
        )
        found = await self._judge.judge(comparison, options, rubric)
        masses = [one.label_mass for one in found.passes if one.label_mass is not None]
        return Opinion(
            status="ok" if found.reason is None else "abstain",
            reason=found.reason,
            preferred=found.preferred,
            probability=found.probability,
            usage=found.usage,
            label_mass=min(masses, default=None),
            injection_attempts=found.injection_attempts,
        )
