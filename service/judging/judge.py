"""The judge: one comparison in, one judgement out, by as many passes as the options ask for."""

from __future__ import annotations

from dataclasses import replace

from models.calibration import Order
from models.comparison import Comparison
from models.judgement import (
    ANSWER_END,
    GRAMMARS,
    RUBRIC_END,
    RUBRIC_GRAMMAR,
    Part,
    verdict_prefix,
)
from models.prompts import FilledPrompt
from models.release import Role
from models.rubric import Rubric
from service.concurrency import together
from service.engines import Engine, GenerationRequest
from service.judging.judgement import Judgement, JudgingOptions, Pass, WrittenRubric
from service.judging.probability import summed_up
from service.judging.reading import read_pass, read_rubric_alone, usage_of, with_verdict


class Judge:
    """A release's judge on an engine."""

    def __init__(self, role: Role, engine: Engine) -> None:
        self._role = role
        self._engine = engine

    async def judge(
        self, comparison: Comparison, options: JudgingOptions, rubric: Rubric | None = None
    ) -> Judgement:
        """Judges a comparison.

        The first pass reads the responses in the given order and, without a
        `rubric`, writes one; the other orders and votes reuse it.

        Raises:
            EngineUnavailable, ContextExceeded: see `service.errors`.
        """
        first = await self._pass(comparison, "given", options, rubric)
        passes = [first]
        shared = rubric or first.rubric
        if shared is not None:
            turns: list[tuple[Order, int]] = [
                (order, vote) for order in options.orders for vote in range(options.votes)
            ]
            passes += await together(
                self._pass(comparison, order, replace(options, seed=options.seed + vote), shared)
                for order, vote in turns[1:]
            )
        return summed_up(passes, options, shared)

    async def write_rubric(self, comparison: Comparison, options: JudgingOptions) -> WrittenRubric:
        """Writes a rubric and stops there."""
        prompt = self._role.prompts["write_rubric"].fill(comparison, self._role.neutralise)
        generation = await self._engine.generate(self._rubric_request(prompt, options))
        rubric, reason = read_rubric_alone(generation)
        return WrittenRubric(rubric, reason, usage_of(generation), prompt.injection_attempts)

    async def _pass(
        self, comparison: Comparison, order: Order, options: JudgingOptions, rubric: Rubric | None
    ) -> Pass:
        asked = comparison.swap() if order == "swapped" else comparison
        layout = "write_rubric" if rubric is None else "rubric_given"
        prompt = self._role.prompts[layout].fill(asked, self._role.neutralise, rubric)
        if options.depth == "full":
            found = await self._full(prompt, order, options, rubric)
        elif rubric is not None:
            found = await self._verdict(prompt, order, options, verdict_prefix(None))
        else:
            found = await self._rubric_then_verdict(prompt, order, options)
        return replace(found, injection_attempts=prompt.injection_attempts)

    async def _full(
        self, prompt: FilledPrompt, order: Order, options: JudgingOptions, rubric: Rubric | None
    ) -> Pass:
        begins_with: Part = "rubric" if rubric is None else "evaluation"
        structured = self._role.config.structured_output
        generation = await self._engine.generate(
            GenerationRequest(
                prompt,
                max_tokens=self._role.config.sampling.judgement_tokens,
                grammar=GRAMMARS[begins_with] if structured else None,
                # Free text may quote the closing tag; only the grammar makes it the end.
                stop=(ANSWER_END,) if structured else (),
                read_labels=True,
                temperature=options.temperature,
                seed=options.seed,
                priority=options.priority,
            )
        )
        calibration = self._role.config.calibration.at("full", order)
        return read_pass(generation, begins_with, order, calibration)

    async def _rubric_then_verdict(
        self, prompt: FilledPrompt, order: Order, options: JudgingOptions
    ) -> Pass:
        drafted = await self._engine.generate(self._rubric_request(prompt, options))
        rubric, reason = read_rubric_alone(drafted)
        if rubric is None:
            return Pass(order, drafted.text, reason=reason, usage=usage_of(drafted))
        found = await self._verdict(prompt, order, options, verdict_prefix(rubric))
        return replace(found, rubric=rubric, usage=usage_of(drafted) + found.usage)

    async def _verdict(
        self, prompt: FilledPrompt, order: Order, options: JudgingOptions, prefix: str
    ) -> Pass:
        generation = await self._engine.generate(
            GenerationRequest(
                prompt,
                prefill=prefix,
                max_tokens=1,
                grammar="[12]" if self._role.config.structured_output else None,
                read_labels=True,
                temperature=options.temperature,
                seed=options.seed,
                priority=options.priority,
            )
        )
        found = Pass(order, prefix + generation.text, usage=usage_of(generation))
        if generation.text.strip() not in ("1", "2"):
            return replace(found, reason="unreadable")
        calibration = self._role.config.calibration.at("verdict", order)
        return with_verdict(found, generation, calibration)

    def _rubric_request(self, prompt: FilledPrompt, options: JudgingOptions) -> GenerationRequest:
        structured = self._role.config.structured_output
        return GenerationRequest(
            prompt,
            max_tokens=self._role.config.sampling.rubric_tokens,
            grammar=RUBRIC_GRAMMAR if structured else None,
            stop=(RUBRIC_END,),
            temperature=options.temperature,
            seed=options.seed,
            priority=options.priority,
        )
