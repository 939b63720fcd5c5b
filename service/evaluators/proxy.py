"""The proxy: a release's own evaluator, whose agreement is the rubric-quality reward."""

from __future__ import annotations

from typing import Self

from typing_extensions import override

from models.comparison import Comparison
from models.release import Role
from models.rubric import Rubric
from service.engines import Engine, GenerationRequest, Priority
from service.evaluators.contract import (
    Evaluator,
    EvaluatorConfig,
    EvaluatorInvalid,
    Opinion,
    Surroundings,
)
from service.judging import Start, begun, read_pass


class ProxyEvaluator(Evaluator):
    """A release's proxy on an engine. Greedy: the same rubric is to get the same reward."""

    def __init__(self, role: Role, engine: Engine) -> None:
        self._role = role
        self._engine = engine

    @override
    @classmethod
    def build(cls, config: EvaluatorConfig, around: Surroundings) -> Self:
        if around.release.proxy is None or around.proxy is None:
            raise EvaluatorInvalid(
                f"release {around.release.config.name!r} has no proxy/ folder; "
                "serve one that has, or leave evaluators of kind 'proxy' out"
            )
        return cls(around.release.proxy, around.proxy)

    @override
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        config, written_in = self._role.config, self._role.output_format
        prompt = self._role.prompts["proxy"].fill(comparison, self._role.neutralise, rubric)
        generation = await self._engine.generate(
            GenerationRequest(
                prompt,
                max_tokens=config.proxy.tokens,
                grammar=written_in.grammar("evaluation") if config.structured_output else None,
                # Free text may quote the closing tag; only the grammar makes it the end.
                stop=(written_in.answer_end,) if config.structured_output else (),
                read_labels=True,
                priority=priority,
            )
        )
        calibration = config.proxy.calibration.given
        found = begun("given", generation, Start())
        found = read_pass(generation, written_in, "evaluation", found, calibration)
        return Opinion(
            status="ok" if found.reason is None else "abstain",
            reason=found.reason,
            preferred=found.preferred,
            probability=found.probability,
            usage=found.usage,
            label_mass=found.label_mass,
            injection_attempts=prompt.injection_attempts,
        )
