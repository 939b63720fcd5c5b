"""vLLM in this process: rendering and scheduling here, the model in vLLM's own core process.

The core may die (out of memory, a driver fault, kill -9). Then every running
generation fails with `EngineUnavailable` and a supervisor starts a new core;
the gateway itself lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import structlog
from typing_extensions import override

from models import torchvision_guard
from models.errors import ReleaseInvalid
from models.release import Release
from service.engines import vllm_plugin
from service.engines.contract import Engine, EngineState, Generation, GenerationRequest
from service.engines.vllm_core import VllmCore
from service.errors import EngineUnavailable
from service.metrics import Metrics
from service.settings import VllmSettings

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_log = structlog.get_logger(__name__)

_HEALTH_EVERY_S = 0.25
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 30.0


class VllmEngine(Engine):
    """The release's judge in vLLM, started again whenever its core process dies."""

    def __init__(self, release: Release, settings: VllmSettings, metrics: Metrics) -> None:
        self._release = release
        self._settings = settings
        self._metrics = metrics
        self._state: EngineState = "stopped"
        self._core: VllmCore | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    @override
    def state(self) -> EngineState:
        return self._state

    @override
    async def start(self) -> None:
        self._state = "starting"
        self._supervisor = asyncio.create_task(self._supervise(), name="vllm-supervisor")

    @override
    async def stop(self) -> None:
        self._state = "stopped"
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None

    @override
    async def generate(self, request: GenerationRequest) -> Generation:
        if self._core is None or self._core.dead:
            raise EngineUnavailable(f"the engine is {self._state}")
        return await self._core.generate(request)

    async def _supervise(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while self.refused is None:
            try:
                await self._live_once()
                backoff_s = _FIRST_BACKOFF_S
            except ReleaseInvalid as error:
                self.refused = error
                self._state = "down"
            except Exception:  # whatever vLLM raises while starting: say so and try again
                self._state = "down"
                _log.exception("engine did not start", next_try_s=backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _live_once(self) -> None:
        """Starts a core, serves from it until it dies, and clears it away."""
        began = time.monotonic()
        try:
            async with _running_llm(self._release, self._settings) as llm:
                core = await VllmCore.checked(llm, self._release)
                self._core, self._state = core, "ready"
                _log.info("engine ready", seconds=round(time.monotonic() - began, 1))
                while not core.dead:  # noqa: ASYNC110 - vLLM sets a flag and nothing else
                    await asyncio.sleep(_HEALTH_EVERY_S)
                self._state = "down"
                self._metrics.engine_deaths.inc()
                _log.error("engine died; starting a new one")
        finally:
            self._core = None


def engine_args(release: Release, settings: VllmSettings) -> Any:
    """VLLM's arguments for a release; `settings.args` has the last word."""
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
            # A partly prefilled request with a seed kills vLLM 0.32's CPU worker: it rewinds the
            # random generator, and "CPU Generator does not use offset". Whole prompts only.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(8192, release.config.context_tokens),
            "gpu_memory_utilization": settings.memory_share or 0.3,
        }
    elif settings.memory_share is not None:
        own["gpu_memory_utilization"] = settings.memory_share
    return AsyncEngineArgs(**(own | settings.args))


def prepare_environment(release: Release, settings: VllmSettings) -> None:
    """Sets what vLLM and its processes read from the environment, before vLLM is imported."""
    torchvision_guard.install_for_children()
    os.environ[vllm_plugin.OWNED] = "1"
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib))
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if release.judge_dir.is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _start_llm(release: Release, settings: VllmSettings) -> AsyncLLM:
    """Blocks for the imports (10 s) and the core's start: for a thread, not the event loop."""
    # Children inherit the mask: Ctrl-C reaches the whole process group, but it is the gateway
    # that decides when the core goes, after running work is finished.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(engine_args(release, settings))


@contextlib.asynccontextmanager
async def _running_llm(release: Release, settings: VllmSettings) -> AsyncGenerator[AsyncLLM]:
    """A started engine, ended on the way out, also when that begins before it has started."""
    starting = asyncio.create_task(asyncio.to_thread(_start_llm, release, settings))
    try:
        yield await asyncio.shield(starting)
    except asyncio.CancelledError:
        if not starting.done():
            _end_starting_core()
        raise
    finally:
        with contextlib.suppress(Exception):  # it did not start: said by the first await
            llm = await starting
            if llm.output_handler is not None:
                llm.output_handler.cancel()  # else it logs the end that we ask for as a failure
            await asyncio.to_thread(llm.shutdown, timeout=5.0)


def _end_starting_core() -> None:
    """The thread that waits for the core's start can't be cancelled, but fails with the core."""
    for child in multiprocessing.active_children():
        if child.name.startswith("EngineCore"):
            child.terminate()
