"""The worker's composition root, and the worker as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from uuid import uuid4

import structlog

from service.embedded_redis import embedded_url
from service.errors import StoreUnavailable
from service.jobs.asking import Asking
from service.jobs.connection import Connection
from service.jobs.job_store import JobStore
from service.jobs.leases import Leases
from service.jobs.throttle import Throttle
from service.jobs.working import Working
from service.settings import Settings
from service.telemetry import set_up_logging

_log = structlog.get_logger(__name__)

_SWEEP_EVERY_S = 60.0


def run_worker(settings: Settings) -> None:
    """Works on jobs until SIGTERM or SIGINT; lines in work are then finished."""
    set_up_logging(settings)
    asyncio.run(_run(settings))
    _log.info("worker stopped")


async def _run(settings: Settings) -> None:
    stopping = asyncio.Event()
    for expected in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(expected, stopping.set)
    redis_url = settings.redis_url
    url = redis_url.get_secret_value() if redis_url else embedded_url(settings.state_dir)
    connection = Connection(url)
    asking = Asking(settings.worker)
    consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    leases = Leases(connection, settings.jobs, consumer)
    working = Working(leases, asking, Throttle(settings.worker.in_flight), settings)
    sweeping = asyncio.create_task(_sweep(JobStore(connection, settings.jobs)))
    _log.info("worker started", consumer=consumer, gateway=settings.worker.gateway_url)
    try:
        await working.run(stopping, settings.drain_s)
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await asking.close()
        await connection.close()


async def _sweep(store: JobStore) -> None:
    while True:
        try:
            forgotten = await store.sweep()
            if forgotten:
                _log.info("jobs forgotten", count=forgotten)
        except StoreUnavailable as error:
            _log.warning("no jobs forgotten", reason=error.detail)
        await asyncio.sleep(_SWEEP_EVERY_S)
