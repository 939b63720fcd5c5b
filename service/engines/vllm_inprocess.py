"""vLLM in this process: rendering and scheduling here, the model in vLLM's own core process.

The core may die (out of memory, a driver fault, kill -9). Then every running
generation fails with `EngineUnavailable` and a supervisor starts a new core;
the gateway itself lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog
from PIL import Image

from models import torchvision_guard
from models.comparison import JudgeImage
from models.errors import ReleaseInvalid
from models.prompts import FilledPrompt
from models.release import Release
from models.release_checks import check_release
from service.engines.contract import (
    Engine,
    EngineState,
    Generation,
    GenerationRequest,
    LabelLogprobs,
)
from service.errors import ContextExceeded, EngineUnavailable
from service.settings import VllmSettings

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_log = structlog.get_logger(__name__)

_PRIORITIES = {"interactive": 0, "batch": 10}  # vLLM serves the lower number first
_FEWEST_ANSWER_TOKENS = 16
_HEALTH_EVERY_S = 1.0
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 30.0


class VllmEngine(Engine):
    """The release's judge in vLLM, restarted whenever its core process dies."""

    def __init__(self, release: Release, settings: VllmSettings) -> None:
        self._release = release
        self._settings = settings
        self._state: EngineState = "stopped"
        self._llm: AsyncLLM | None = None
        self._labels: tuple[int, int] = (0, 0)
        self._died = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def state(self) -> EngineState:
        return self._state

    async def start(self) -> None:
        self._state = "starting"
        self._supervisor = asyncio.create_task(self._supervise(), name="vllm-supervisor")

    async def stop(self) -> None:
        self._state = "stopped"
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        await self._discard()

    async def generate(self, request: GenerationRequest) -> Generation:
        if self._state != "ready" or self._llm is None:
            raise EngineUnavailable(f"the engine is {self._state}")
        return await self._generate(self._llm, request)

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        """The prompt as the model sees it (`models.release_checks.Renderer`)."""
        assert self._llm is not None
        return list((await _render(self._llm, prompt, prefill))["prompt_token_ids"])

    async def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                await self._bring_up()
            except ReleaseInvalid as error:
                self.refused = error
                self._state = "down"
                _log.error("release refused", reason=str(error))
                return
            except Exception:  # whatever vLLM raises while starting: say so and try again
                _log.exception("engine did not start", next_try_s=backoff_s)
                self._state = "down"
                await self._discard()
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
                continue
            backoff_s = _FIRST_BACKOFF_S
            await self._until_dead()
            self._state = "down"
            _log.error("engine died; starting a new one")
            await self._discard()

    async def _bring_up(self) -> None:
        began = time.monotonic()
        self._died.clear()
        self._llm = await asyncio.to_thread(_start_llm, self._release, self._settings)
        await (
            self._llm.reset_mm_cache()
        )  # start-up profiling leaves entries that only one side knows
        self._labels = await check_release(self._release, self)
        await self._generate(self._llm, _probe_request(self._release))
        self._state = "ready"
        _log.info("engine ready", seconds=round(time.monotonic() - began, 1))

    async def _until_dead(self) -> None:
        while self._llm is not None and not self._llm.errored:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._died.wait(), _HEALTH_EVERY_S)
                return

    async def _discard(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown, timeout=5.0)

    async def _generate(self, llm: AsyncLLM, request: GenerationRequest) -> Generation:
        rendered = await _translated(_render(llm, request.prompt, request.prefill))
        room = llm.model_config.max_model_len - len(rendered["prompt_token_ids"])
        if room < min(_FEWEST_ANSWER_TOKENS, request.max_tokens):
            raise ContextExceeded(
                "the comparison is longer than the model's context of "
                f"{llm.model_config.max_model_len} tokens"
            )
        params = self._sampling_params(request, room)
        try:
            output = await _last_output(llm, rendered, params, _PRIORITIES[request.priority])
        except EngineUnavailable:
            if llm.errored:
                self._died.set()
            raise
        return self._generation(output, request)

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
            logprob_token_ids=list(self._labels) if request.read_labels else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _generation(self, output: Any, request: GenerationRequest) -> Generation:
        (completion,) = output.outputs
        return Generation(
            text=completion.text,
            truncated=completion.finish_reason == "length" and request.max_tokens > 1,
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(completion.token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            labels=self._label_logprobs(completion) if request.read_labels else None,
        )

    def _label_logprobs(self, completion: Any) -> LabelLogprobs | None:
        """Read at the last label token: nothing but the closing tag follows the verdict."""
        first, second = self._labels
        for place in range(len(completion.token_ids) - 1, -1, -1):
            if completion.token_ids[place] in (first, second):
                at = completion.logprobs[place]
                return LabelLogprobs(at[first].logprob, at[second].logprob)
        return None


def engine_args(release: Release, settings: VllmSettings) -> Any:
    """vLLM's arguments for a release; `settings.args` has the last word."""
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform

    own: dict[str, Any] = {
        "model": str(release.judge_dir),
        "max_model_len": release.config.context_tokens,
        "limit_mm_per_prompt": {"image": release.config.images.maximum, "video": 0},
        "scheduling_policy": "priority",
        "enable_prefix_caching": True,
        "enable_log_requests": False,
    }
    if current_platform.is_cpu():
        # On CPU the share is of free RAM and start-up fails when less is free; what the
        # engine really takes is VLLM_CPU_KVCACHE_SPACE.
        own |= {
            "dtype": "float32",
            "enforce_eager": True,
            "gpu_memory_utilization": settings.memory_share or 0.3,
        }
    elif settings.memory_share is not None:
        own["gpu_memory_utilization"] = settings.memory_share
    return AsyncEngineArgs(**(own | settings.args))


def _start_llm(release: Release, settings: VllmSettings) -> AsyncLLM:
    """Blocks for the imports (10 s) and the core's start; not for the event loop's thread."""
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(engine_args(release, settings))


def prepare_environment(release: Release, settings: VllmSettings) -> None:
    """Sets what vLLM and its processes read from the environment; call it before vLLM is imported."""
    torchvision_guard.install_for_children()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if release.judge_dir.is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _probe_request(release: Release) -> GenerationRequest:
    pixels = Image.new("RGB", (56, 56), (128, 128, 128))
    picture = (JudgeImage(pixels, "probe"),) if release.config.images.maximum else ()
    prompt = FilledPrompt("Answer.", (*picture, "Ready?"))
    return GenerationRequest(prompt, max_tokens=1, read_labels=True)


async def _render(llm: AsyncLLM, prompt: FilledPrompt, prefill: str) -> Any:
    from vllm.renderers.inputs.preprocess import parse_model_prompt

    messages = [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": [_part(part) for part in prompt.user]},
    ]
    text = llm.get_tokenizer().apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    raw: dict[str, Any] = {"prompt": text + prefill}
    if prompt.images:
        raw["multi_modal_data"] = {"image": [image.pixels for image in prompt.images]}
        # Identities come from the bytes themselves, never from a client: they key vLLM's caches.
        raw["multi_modal_uuids"] = {"image": [image.identity for image in prompt.images]}
    parsed = parse_model_prompt(llm.model_config, raw)
    # Rendering without submitting (a caller gone in between) would leave the multimodal cache's
    # two halves in disagreement, so it is left out; encoder and prefix caches still apply.
    (rendered,) = await llm.renderer.render_cmpl_async([parsed], skip_mm_cache=True)
    return rendered


def _part(part: str | JudgeImage) -> dict[str, str]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}


async def _last_output(llm: AsyncLLM, rendered: Any, params: Any, priority: int) -> Any:
    async def run() -> Any:
        last = None
        async for output in llm.generate(rendered, params, uuid4().hex, priority=priority):
            last = output
        return last

    for _ in range(2):  # an "error" finish is worth one retry, as vLLM's own server does
        output = await _translated(run())
        if output is not None and output.outputs[0].finish_reason in ("stop", "length"):
            return output
    raise EngineUnavailable("the engine gave up on this request")


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
        _log.warning("engine failed on a request", error=type(cause).__name__, exc_info=True)
        raise EngineUnavailable("the engine failed on this request") from cause
