"""Workers that start and stop with a gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from functools import partial

import structlog
from pydantic import SecretStr

from service.child_process import end_with_parent
from service.settings import Settings, child_environment

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.5
_RESTART_AFTER_S = 2.0


class Workers:
    """Worker processes beside a gateway, each started again when it ends.

    Args:
        gateway_url: where this gateway listens.
        api_key: what it asks them for; None where it asks for none.
    """

    def __init__(self, settings: Settings, gateway_url: str, api_key: SecretStr | None) -> None:
        changes = {"WORKER__GATEWAY_URL": gateway_url, "WORKERS": "0"}
        changes["STATE_DIR"] = str(settings.state_dir)
        self._count = settings.workers
        if api_key is not None:
            changes["WORKER__API_KEY"] = api_key.get_secret_value()
        self._environment = child_environment(**changes)
        self._running: list[subprocess.Popen[bytes]] = []
        self._keeping: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts them."""
        self._keeping = [asyncio.create_task(self._keep()) for _ in range(self._count)]

    async def stop(self) -> None:
        """Lets them finish the lines that they have in work, and returns when they are gone."""
        for keeping in self._keeping:
            keeping.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            while process.poll() is None:  # noqa: ASYNC110 - a wait in a thread can't be cancelled
                await asyncio.sleep(_LOOK_EVERY_S / 10)

    def kill(self) -> None:
        """Ends those that are left; what they had in work is done again by others."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()

    async def _keep(self) -> None:
        while True:
            try:
                process = self._started()
            except (OSError, subprocess.SubprocessError) as error:  # no memory or file is left
                _log.error("a worker could not be started; trying again", reason=str(error))
            else:
                while process.poll() is None:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(_LOOK_EVERY_S)
                self._running.remove(process)
                _log.warning("a worker ended; starting another", status=process.returncode)
            await asyncio.sleep(_RESTART_AFTER_S)

    def _started(self) -> subprocess.Popen[bytes]:
        """A new worker; this thread's child, which ends with it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "worker"],
            env=self._environment,
            process_group=0,  # Ctrl-C is for the gateway, which stops this one first
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
        self._running.append(process)
        return process
