"""The gateway as a process: listening, draining on SIGTERM, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from service.api.gateway import Gateway
from service.app import create_app
from service.concurrency import together
from service.heads import bounded_heads
from service.keys import Keyring
from service.settings import Settings
from service.telemetry import set_up_logging
from service.tenancy import DEFAULT_TENANT
from service.worker_children import Workers

_log = structlog.get_logger(__name__)

_NOT_STARTED = 2
_REFUSED = 3  # exit status when the engine can never serve this release
_WATCH_EVERY_S = 0.25
_KEEP_ALIVE_S = 75
_WORKERS_KEY = "workers-beside"
_ENDING_S = 10.0  # an engine's processes need some seconds to go


def run_gateway(settings: Settings) -> NoReturn:
    """Runs until SIGTERM or SIGINT and ends the process with an exit status.

    The first signal drains: new work gets 503 ``draining``, running work is
    finished, at the longest for `Settings.drain_s`. A second one stops at once.
    """
    set_up_logging(settings)
    listening = _listen(settings)  # first: an engine takes half a minute to start
    app = create_app(settings)
    server = _DrainingServer(app, settings)
    # Never closed, as `asyncio.run` would: that waits for tasks that do not heed being cancelled.
    runner = asyncio.Runner()
    with contextlib.suppress(SystemExit):  # uvicorn's word for a start that failed
        runner.run(server.serve_until_drained(listening))
    if not server.started:
        reason = getattr(app.state, "start_error", "the gateway did not start; see above")
        print(f"error: {reason}", file=sys.stderr)
        server.exit_status = _NOT_STARTED
    _log.info("stopped")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is stopped. Taking torch and vLLM apart object by object would take seconds more
    # and ends in complaints of vLLM's finalisers.
    os._exit(server.exit_status)


class PortTaken(Exception):
    """Nobody can listen there."""


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as cause:
        listening.close()
        raise PortTaken(
            f"cannot listen on {settings.host} port {settings.port}: {cause.strerror}. "
            "Choose another with PORT=… (make) or --port"
        ) from cause
    return listening


class _DrainingServer(uvicorn.Server):
    """uvicorn stops listening on the first signal; this one goes on answering until drained."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=bounded_heads(settings.limits.head_s, settings.limits.body_s),
            ws="none",  # nobody here speaks it, and its protocol has bounds of its own
            lifespan="on",  # by default an app that cannot start is served all the same
            log_config=None,
            access_log=False,
            # Longer than clients and proxies keep theirs: who closes first must not be this side,
            # or a request that is just being sent on the connection is lost.
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._signals: list[signal.Signals] = []
        self._workers: Workers | None = None
        self.exit_status = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # No logging here: the handler may have interrupted the log in the middle of a line.
        self._signals.append(signal.Signals(sig))
        if len(self._signals) > 1:
            self.should_exit = self.force_exit = True

    async def serve_until_drained(self, listening: socket.socket) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            await self.serve([listening])
        finally:
            watching.cancel()
            if self._workers is not None:
                self._workers.kill()
            if self.force_exit:  # the lifespan's end by cancellation is what was asked for
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await _end_what_is_left()

    async def _watch(self) -> None:
        while not self.started:  # noqa: ASYNC110 - uvicorn tells it by this attribute alone
            await asyncio.sleep(_WATCH_EVERY_S)
        gateway: Gateway = self._app.state.gateway
        _announce(gateway)
        self._workers = Workers(self._settings, self._url, self._workers_key())
        self._workers.start()
        ready = False
        while not self._signals:
            await asyncio.sleep(_WATCH_EVERY_S)
            if not ready and gateway.engine.state == "ready":
                ready = True
                _log.info("ready", url=self._url)
            if gateway.engine.refused is not None:
                print(f"error: {gateway.engine.refused}", file=sys.stderr)
                self.exit_status = _REFUSED
                break
        if self._signals:
            _log.info("draining", signal=self._signals[0].name)
        gateway.admission.draining = True
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await together((self._workers.stop(), gateway.admission.drained()))
        except TimeoutError:
            _log.warning("stopping with work unfinished", after_s=self._settings.drain_s)
        self.should_exit = True

    def _workers_key(self) -> SecretStr | None:
        """What workers beside this gateway show it, where it asks for keys."""
        keyring: Keyring | None = self._app.state.keyring
        if keyring is None or self._settings.worker.api_key is not None:
            return self._settings.worker.api_key
        return SecretStr(keyring.issue(_WORKERS_KEY, DEFAULT_TENANT))

    @property
    def _url(self) -> str:
        port = self.servers[0].sockets[0].getsockname()[1]  # the one taken, where 0 was asked for
        host = self._settings.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _end_what_is_left() -> None:
    """Cancels every other task. An evaluator may not heed that: it ends with the process."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (await asyncio.wait(left, timeout=_ENDING_S))[1]:
        _log.warning("stopping with tasks that do not end")


def _announce(gateway: Gateway) -> None:
    if gateway.engine.state != "ready":
        _log.info("engine starting; a forward pass decides when it is ready (about 40 s on a CPU)")
