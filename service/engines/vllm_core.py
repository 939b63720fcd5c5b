"""One running vLLM core: a generation request in, a generation out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from models.prompts import FilledPrompt
from models.release import Role
from models.release_checks import check_role
from service.concurrency import unless
from service.engines.contract import Generation, GenerationRequest, LabelLogprobs
from service.engines.progress import Progress
from service.engines.vllm_common import FEWEST_ANSWER_TOKENS, PRIORITIES, probe, surprisal
from service.engines.vllm_rendering import PromptRenderer
from service.errors import ContextExceeded, EngineUnavailable

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_log = structlog.get_logger(__name__)


class VllmCore:
    """A judge or proxy, loaded and checked. Once `dead`, it stays so.

    Attributes:
        progress: of its work.
    """

    def __init__(
        self, llm: AsyncLLM, labels: tuple[int, int], first: FilledPrompt, patience_s: float
    ) -> None:
        self._llm = llm
        self._labels = labels
        self._first = first
        self._lost = asyncio.Event()
        self.progress = Progress(self.ask_first, patience_s)
        _tell_of_outputs(llm, self.progress.moved)
        self._renderer = PromptRenderer(llm.renderer, llm.vllm_config)

    @classmethod
    async def checked(cls, llm: AsyncLLM, role: Role, patience_s: float) -> VllmCore:
        """Checks the role on the freshly started engine and makes a first forward pass.

        Raises:
            ReleaseInvalid: the weights and their prompts do not fit each other.
            EngineUnavailable: the forward pass failed.
        """
        # Profiling at start-up leaves entries that only one side of the multimodal cache knows.
        await llm.reset_mm_cache()
        labels = await check_role(role, PromptRenderer(llm.renderer, llm.vllm_config))
        core = cls(llm, labels, probe(role), patience_s)
        await core.ask_first()
        return core

    @property
    def dead(self) -> bool:
        """Whether the core process is gone."""
        return self._llm.errored

    def give_up(self) -> None:
        """Fails everything that waits for it: it will not answer any more."""
        self._lost.set()

    async def ask_first(self) -> None:
        """One token, the least that it can be asked for."""
        await self._generate(GenerationRequest(self._first, max_tokens=1, read_labels=True))

    async def generate(self, request: GenerationRequest) -> Generation:
        """`Engine.generate` on this core."""
        with self.progress.generating():
            lost = EngineUnavailable("the engine stopped working on this request")
            return await unless(self._lost, self._generate(request), lost)

    async def _generate(self, request: GenerationRequest) -> Generation:
        rendered = await _translated(self._renderer.render(request.prompt, request.prefill))
        context = self._renderer.context_tokens
        room = context - len(rendered["prompt_token_ids"])
        if room < min(FEWEST_ANSWER_TOKENS, request.max_tokens):
            raise ContextExceeded(f"the comparison exceeds the model's context of {context} tokens")
        params = self._sampling_params(request, room)
        for _ in range(2):  # an "error" finish is worth one retry, as vLLM's own server does
            output = await _translated(self._output(rendered, params, request))
            if output is not None and output.outputs[0].finish_reason in ("stop", "length"):
                return self._generation(output, request)
        raise EngineUnavailable("the engine gave up on this request")

    async def _output(self, rendered: Any, params: Any, request: GenerationRequest) -> Any:
        priority = PRIORITIES[request.priority]
        last = None
        async for output in self._llm.generate(rendered, params, uuid4().hex, priority=priority):
            last = output
        return last

    def _sampling_params(self, request: GenerationRequest, room: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        structured = StructuredOutputsParams(regex=request.grammar) if request.grammar else None
        return SamplingParams(
            max_tokens=min(request.max_tokens, room),
            temperature=request.temperature,
            seed=request.seed if request.temperature > 0 else None,
            stop=list(request.stop),
            include_stop_str_in_output=True,
            structured_outputs=structured,
            logprob_token_ids=list(self._labels),  # beside that of the token itself
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _generation(self, output: Any, request: GenerationRequest) -> Generation:
        (completion,) = output.outputs
        at = self._verdict_place(completion) if request.read_labels else None
        return Generation(
            text=completion.text,
            truncated=completion.finish_reason == "length" and request.max_tokens > 1,
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(completion.token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            labels=None if at is None else self._label_logprobs(completion.logprobs[at]),
            surprisal=surprisal(
                found[token].logprob
                for token, found in zip(
                    completion.token_ids[:at], completion.logprobs, strict=False
                )
            ),
        )

    def _verdict_place(self, completion: Any) -> int | None:
        """The last label token: nothing but the closing tag follows the verdict."""
        places = range(len(completion.token_ids) - 1, -1, -1)
        return next(
            (place for place in places if completion.token_ids[place] in self._labels), None
        )

    def _label_logprobs(self, found: Any) -> LabelLogprobs:
        first, second = self._labels
        return LabelLogprobs(found[first].logprob, found[second].logprob)


def _tell_of_outputs(llm: AsyncLLM, moved: Callable[[], None]) -> None:
    """Calls `moved` for every step of which something comes, a generation's end or not.

    vLLM's own loggers of statistics would tell as much, but not of two engines in one process.
    """
    processor: Any = llm.output_processor
    process = processor.process_outputs

    def process_and_tell(outputs: Any, *arguments: Any, **named: Any) -> Any:
        if outputs:
            moved()
        return process(outputs, *arguments, **named)

    processor.process_outputs = process_and_tell


async def _translated(work: Awaitable[Any]) -> Any:
    """The boundary: whatever vLLM raises becomes one of the service's errors."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError

    try:
        return await work
    except VLLMClientError as cause:
        raise ContextExceeded("the comparison is longer than the model's context") from cause
    except GracefulHTTPError as cause:
        raise EngineUnavailable("the engine's queue is full", retry_after_s=1) from cause
    except Exception as cause:
        _log.warning("engine failed on a request", error=type(cause).__name__)
        raise EngineUnavailable("the engine failed on this request") from cause
