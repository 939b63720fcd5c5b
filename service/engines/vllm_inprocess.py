"""vLLM in this process: rendering and scheduling here, the model in vLLM's own core process.

The core may die (out of memory, a driver fault, kill -9), or live and do nothing.
Then every running generation fails with `EngineUnavailable` and a supervisor
starts a new core; the gateway itself lives on. Judge and proxy are an engine
each, with a core each.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

import structlog
from typing_extensions import override

from models.errors import ReleaseInvalid
from models.release import Release, Role
from service.engines.contract import Engine, EngineState, Generation, GenerationRequest
from service.engines.vllm_arguments import engine_arguments
from service.engines.vllm_core import VllmCore
from service.errors import EngineUnavailable
from service.metrics import Metrics
from service.settings import VllmSettings

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_log = structlog.get_logger(__name__)

_HEALTH_EVERY_S = 0.25
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 30.0
_STARTS = asyncio.Lock()  # one at a time: each measures what memory is free and takes its share


class VllmEngine(Engine):
    """One role of a release in vLLM, started again whenever its core process dies or hangs.

    Args:
        patience_s: how long nothing may come of its work; see `Progress`.
    """

    def __init__(
        self,
        release: Release,
        role: Role,
        settings: VllmSettings,
        metrics: Metrics,
        *,
        patience_s: float,
    ) -> None:
        self._release = release
        self._role = role
        self._patience_s = patience_s
        self._settings = settings
        self._died = metrics.engine_deaths.labels(role.name).inc
        self._state: EngineState = "stopped"
        self._core: VllmCore | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._running = 0

    @property
    @override
    def state(self) -> EngineState:
        return self._state

    @property
    @override
    def running(self) -> int:
        return self._running

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
        self._running += 1
        try:
            return await self._core.generate(request)
        finally:
            self._running -= 1

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
                _log.exception("engine did not start", role=self._role.name)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _live_once(self) -> None:
        """Starts a core, serves from it until it dies, and clears it away."""
        began = time.monotonic()
        try:
            async with _running_llm(
                partial(_start_llm, self._release, self._role, self._settings)
            ) as llm:
                core = await VllmCore.checked(llm, self._role, self._patience_s)
                self._core, self._state = core, "ready"
                _log.info(
                    "engine ready", role=self._role.name, seconds=round(time.monotonic() - began, 1)
                )
                end = await _end_of(core)
                self._state = "down"
                self._died()
                _log.error(f"engine {end}; starting a new one", role=self._role.name)
                core.give_up()
        finally:
            self._core = None


async def _end_of(core: VllmCore) -> str:
    """Waits until the core does not work any more; what became of it."""
    while not core.dead:
        if await core.progress.stalled():
            return "hangs"
        await asyncio.sleep(_HEALTH_EVERY_S)
    return "died"


def _start_llm(release: Release, role: Role, settings: VllmSettings) -> AsyncLLM:
    """Blocks for the imports (10 s) and the core's start: for a thread, not the event loop."""
    # Children inherit the mask: Ctrl-C reaches the whole process group, but it is the gateway
    # that decides when the core goes, after running work is finished.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(release, role, settings)))


@contextlib.asynccontextmanager
async def _running_llm(start: Callable[[], AsyncLLM]) -> AsyncGenerator[AsyncLLM]:
    """A started engine, ended on the way out, also when that begins before it has started."""
    async with _STARTS:
        others = set(multiprocessing.active_children())
        starting = asyncio.create_task(asyncio.to_thread(start))
        try:
            llm = await asyncio.shield(starting)
        except asyncio.CancelledError:
            while not starting.done():
                _end_starting_core(others)
                await asyncio.wait([starting], timeout=_HEALTH_EVERY_S)
            with contextlib.suppress(Exception):  # it failed with its core
                await _shut_down(starting.result())
            raise
    try:
        yield llm
    finally:
        await _shut_down(llm)


async def _shut_down(llm: AsyncLLM) -> None:
    if llm.output_handler is not None:
        llm.output_handler.cancel()  # else it logs the end that we ask for as a failure
    with contextlib.suppress(Exception):
        await asyncio.to_thread(llm.shutdown, timeout=5.0)


def _end_starting_core(others: set[BaseProcess]) -> None:
    """The thread that waits for the core's start can't be cancelled, but fails with the core.

    Args:
        others: processes that were there before, another engine's core among them; each that is
            ended is added.
    """
    for child in multiprocessing.active_children():
        if child not in others and child.name.startswith("EngineCore"):
            others.add(child)
            child.terminate()
