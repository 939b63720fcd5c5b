"""An engine that starts when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import structlog
from typing_extensions import override

from service.engines.contract import Engine, EngineState, Generation, GenerationRequest
from service.errors import EngineUnavailable

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.05
_REFUSED_RETRY_S = 60  # nothing changes until somebody repairs the release and restarts


class OnDemandEngine(Engine):
    """Starts the engine it wraps at the first `generate`, once for all who ask meanwhile.

    Callers wait for the start as long as their own time lasts; one that leaves
    does not stop it. When a start fails, those who waited are told so and the
    next request tries again. Once started, the engine sees to itself.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._starting: asyncio.Task[bool] | None = None
        self._stopped = False

    @property
    @override
    def state(self) -> EngineState:
        return self._engine.state

    @property
    @override
    def running(self) -> int:
        return self._engine.running

    @override
    async def start(self) -> None:
        """Starts it now instead of at the first `generate`."""
        self._stopped = False
        if self._engine.state == "stopped":
            self._begin()

    @override
    async def stop(self) -> None:
        self._stopped = True
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting
            self._starting = None
        await self._engine.stop()

    @override
    async def generate(self, request: GenerationRequest) -> Generation:
        if self._stopped:
            raise EngineUnavailable("the engine is stopped")
        if self._starting is not None or self._engine.state == "stopped":
            await self._started()
        return await self._engine.generate(request)

    async def _started(self) -> None:
        if self.refused is not None:
            raise EngineUnavailable(
                "this model failed its start-up checks; the service's log says why",
                retry_after_s=_REFUSED_RETRY_S,
            )
        starting = self._begin()
        await asyncio.wait([starting])  # unlike an await, leaves the start alone when cancelled
        if starting.cancelled() or not starting.result():
            raise EngineUnavailable("the engine did not start")

    def _begin(self) -> asyncio.Task[bool]:
        if self._starting is None:
            # In a context of its own: the log lines of this engine are not the first request's.
            context = contextvars.Context()
            self._starting = asyncio.create_task(self._start(), context=context)
        return self._starting

    async def _start(self) -> bool:
        """Whether it became ready; if not, it is stopped again so that another try can be made."""
        try:
            await self._engine.start()
            while self._engine.state == "starting":  # noqa: ASYNC110 - engines tell it by that alone
                await asyncio.sleep(_LOOK_EVERY_S)
            if self._engine.state == "ready":
                return True
            self.refused = self._engine.refused
            await self._engine.stop()
        except Exception:
            _log.exception("engine start failed in an unforeseen way")
        finally:
            self._starting = None
        if self.refused is not None:
            _log.error("engine refused; it is not tried again", reason=str(self.refused))
        else:
            _log.error("engine did not start; the next request tries again")
        return False
