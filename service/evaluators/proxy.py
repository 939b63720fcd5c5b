"""The proxy: a release's own evaluator, whose agreement is the rubric-quality reward."""

from __future__ import annotations

import time

from typing_extensions import override

from models.comparison import Comparison
from models.judgement import ANSWER_END, GRAMMARS
from models.release import Role
from models.rubric import Rubric
from service.engines import Engine, GenerationRequest, Priority
from service.evaluators.contract import Evaluator, Opinion
from service.judging import read_pass


class ProxyEvaluator(Evaluator):
    """A release's proxy on an engine. Greedy: the same rubric is to get the same reward."""

    def __init__(self, role: Role, engine: Engine) -> None:
        self._role = role
        self._engine = engine

    @override
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        config = self._role.config
        began = time.monotonic()
        prompt = self._role.prompts["proxy"].fill(comparison, self._role.neutralise, rubric)
        generation = await self._engine.generate(
            GenerationRequest(
                prompt,
                max_tokens=config.proxy.tokens,
                grammar=GRAMMARS["evaluation"] if config.structured_output else None,
                # Free text may quote the closing tag; only the grammar makes it the end.
                stop=(ANSWER_END,) if config.structured_output else (),
                read_labels=True,
                priority=priority,
            )
        )
        found = read_pass(generation, "evaluation", "given", config.proxy.calibration.given)
        return Opinion(
            status="ok" if found.reason is None else "abstain",
            reason=found.reason,
            preferred=found.preferred,
            probability=found.probability,
            latency_s=time.monotonic() - began,
            usage=found.usage,
            label_mass=found.label_mass,
            injection_attempts=prompt.injection_attempts,
        )
