"""One reading of a comparison in one order: the prompt, its generations, and what they say."""

from __future__ import annotations

from dataclasses import replace

from models.calibration import Order
from models.comparison import Comparison
from models.judgement import RUBRIC_END, RUBRIC_GRAMMAR, Part, write_rubric
from models.prompts import FilledPrompt
from models.release import Role
from models.rubric import Rubric
from service.concurrency import together
from service.engines import Engine, GenerationRequest
from service.errors import InvalidRequest, NotFound
from service.judging.judgement import JudgingOptions, Pass, WrittenRubric
from service.judging.reading import (
    Start,
    begun,
    read_pass,
    read_rubric_alone,
    usage_of,
    with_verdict,
)

_NEEDS_EVALUATION = (
    "the judge of this release gives no verdict before it has written its evaluation: "
    "take depth full and order given or both"
)


class Reader:
    """A release's judge, asked once."""

    def __init__(self, role: Role, engine: Engine) -> None:
        self._role = role
        self._format = role.output_format
        self._engine = engine

    @property
    def writes_rubric(self) -> bool:
        """Whether a comparison without a rubric comes back with one."""
        return self._format.writes_rubric

    async def read(
        self,
        comparison: Comparison,
        order: Order,
        options: JudgingOptions,
        rubric: Rubric | None,
        *,
        early: bool = False,
        surprisal: float | None = None,
    ) -> Pass:
        """Reads a comparison.

        Args:
            comparison: in the given order, whatever `order` says.
            order: in which the responses are read.
            options: depth, sampling and priority.
            rubric: None lets the judge write one first, if it does such a thing.
            early: also say what the verdict would be without the evaluation.
            surprisal: of what the judge wrote itself in an earlier pass, its rubric included.

        Raises:
            InvalidRequest: a verdict before the evaluation, from a judge that gives none.
            EngineUnavailable, ContextExceeded: see `service.errors`.
        """
        before_evaluation = early or options.depth == "verdict"
        if before_evaluation and not self._format.verdict_depth:
            raise InvalidRequest(_NEEDS_EVALUATION)
        asked = comparison.swap() if order == "swapped" else comparison
        layout = self._format.opening if rubric is None else "rubric_given"
        prompt = self._role.prompts[layout].fill(asked, self._role.neutralise, rubric)
        writes = rubric is None and self.writes_rubric
        if writes and (before_evaluation or options.drafting is not None):
            found = await self._drafted(prompt, order, options, early=before_evaluation)
        elif before_evaluation:
            found = await self._by_rubric(prompt, order, options, Start(surprisal=surprisal))
        else:
            part: Part = "rubric" if writes else "evaluation"
            found = await self._full(prompt, order, options, part, Start(surprisal=surprisal))
        return replace(found, injection_attempts=prompt.injection_attempts)

    async def write_rubric(self, comparison: Comparison, options: JudgingOptions) -> WrittenRubric:
        """Writes a rubric and stops there.

        Raises:
            NotFound: this judge writes none.
            EngineUnavailable, ContextExceeded: see `service.errors`.
        """
        if not self.writes_rubric:
            raise NotFound("the judge of this release writes no rubric")
        prompt = self._role.prompts["write_rubric"].fill(comparison, self._role.neutralise)
        generation = await self._engine.generate(self._rubric_request(prompt, options))
        rubric, reason = read_rubric_alone(generation)
        return WrittenRubric(rubric, reason, usage_of(generation), prompt.injection_attempts)

    async def _drafted(
        self, prompt: FilledPrompt, order: Order, options: JudgingOptions, *, early: bool
    ) -> Pass:
        """A rubric on its own, then what follows it."""
        drafted = await self._engine.generate(self._rubric_request(prompt, options))
        written, reason = read_rubric_alone(drafted)
        usage = usage_of(drafted)
        if written is None:
            return Pass(order, drafted.text, reason=reason, usage=usage)
        start = Start(f"{write_rubric(written)}\n", drafted.surprisal)
        if early:
            found = await self._by_rubric(prompt, order, options, start)
        else:
            found = await self._full(prompt, order, options, "evaluation", start)
        return replace(found, rubric=written, usage=usage + found.usage)

    async def _by_rubric(
        self, prompt: FilledPrompt, order: Order, options: JudgingOptions, start: Start
    ) -> Pass:
        """What follows a rubric: the verdict at once and, at full depth, the evaluation beside it.

        The judge has just written the rubric with which it starts, or it stands in the prompt.
        """
        at_once = self._verdict(prompt, order, options, start)
        if options.depth == "verdict":
            found = await at_once
            return replace(found, early=found.probability)
        first, found = await together(
            [at_once, self._full(prompt, order, options, "evaluation", start)]
        )
        return replace(found, early=first.probability, usage=first.usage + found.usage)

    async def _full(
        self,
        prompt: FilledPrompt,
        order: Order,
        options: JudgingOptions,
        begins_with: Part,
        start: Start,
    ) -> Pass:
        structured = self._role.config.structured_output
        grammar = self._format.grammar(begins_with) if structured else None
        generation = await self._engine.generate(
            GenerationRequest(
                prompt,
                prefill=start.text,
                max_tokens=self._role.config.sampling.judgement_tokens,
                grammar=grammar,
                # Free text may quote the closing tag; only the grammar makes it the end.
                stop=(self._format.answer_end,) if grammar else (),
                read_labels=True,
                temperature=options.temperature,
                seed=options.seed,
                priority=options.priority,
            )
        )
        calibration = self._role.config.calibration.at("full", order)
        found = begun(order, generation, start)
        return read_pass(generation, self._format, begins_with, found, calibration)

    async def _verdict(
        self, prompt: FilledPrompt, order: Order, options: JudgingOptions, start: Start
    ) -> Pass:
        start = replace(start, text=start.text + self._format.verdict_prefix())
        generation = await self._engine.generate(
            GenerationRequest(
                prompt,
                prefill=start.text,
                max_tokens=1,
                grammar="[12]" if self._role.config.structured_output else None,
                read_labels=True,
                temperature=options.temperature,
                seed=options.seed,
                priority=options.priority,
            )
        )
        found = begun(order, generation, start)
        if generation.text.strip() not in ("1", "2"):
            return replace(found, reason="unreadable")
        calibration = self._role.config.calibration.at("verdict", order)
        return with_verdict(found, generation, calibration)

    def _rubric_request(self, prompt: FilledPrompt, options: JudgingOptions) -> GenerationRequest:
        drafting = options.drafting or options
        structured = self._role.config.structured_output
        return GenerationRequest(
            prompt,
            max_tokens=self._role.config.sampling.rubric_tokens,
            grammar=RUBRIC_GRAMMAR if structured else None,
            stop=(RUBRIC_END,),
            temperature=drafting.temperature,
            seed=drafting.seed,
            priority=options.priority,
        )
