"""A service of our own for the length of a job: calibration, evaluation and the proxy need one."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx

from models.training.errors import ServiceFailed


@contextlib.contextmanager
def served(
    release: Path, workspace: Path, *, wait_s: float = 300, **settings: str
) -> Generator[str]:
    """Serves a release on a free port of this machine; gives its URL once it is ready.

    Args:
        release: the release's folder.
        workspace: state and log of the service go here.
        wait_s: how long it may take to start.
        settings: further ``PROXY_GRM_*`` settings by their names without the prefix.

    Raises:
        ServiceFailed: it does not get ready; the message names the log.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    port, log = _free_port(), workspace / "service.log"
    variables = {
        "RELEASE": str(release.resolve()),
        "STATE_DIR": str(workspace / "state"),
        **settings,
    }
    command = [
        "env",
        *(f"PROXY_GRM_{name}={value}" for name, value in variables.items()),
        *(sys.executable, "-m", "service", "gateway", "--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait_until_ready(process, url, log, wait_s)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceFailed(f"the service ended with status {process.returncode}: see {log}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise ServiceFailed(f"the service was not ready after {wait_s:.0f} s: see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
