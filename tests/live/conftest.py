"""The real thing: `python -m service gateway` with vLLM on the tiny release."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadtests.drills.site import free_port
from models.toyworld import ToyCase, make_case

START_S = 1800  # generous: this is no benchmark, and the machine may have other work


@dataclass(frozen=True)
class LiveGateway:
    """A running gateway."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait_until_ready(self, within_s: float = START_S) -> float:
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            if self.process.poll() is not None:
                pytest.fail(f"the gateway ended:\n{self.log.read_text()[-4000:]}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            time.sleep(0.25)
        pytest.fail(f"not ready within {within_s} s:\n{self.log.read_text()[-4000:]}")

    def metric(self, name: str) -> float:
        """The sum of a series over its labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=10).text
        lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def descendants(self) -> set[int]:
        """Every process that the gateway has started, and theirs."""
        return {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}

    def engine_pid(self, title: str = "EngineCore") -> int:
        """The process of the engine that has this in its title."""
        titles = {pid: " ".join(psutil.Process(pid).cmdline()) for pid in self.descendants()}
        (found,) = [pid for pid, name in titles.items() if title in name]
        return found


def start_gateway(folder: Path, **environment: str) -> LiveGateway:
    port = free_port()
    log = folder / "gateway.log"
    variables = {
        **os.environ,
        "PROXY_GRM_STATE_DIR": str(folder / "state"),
        "PROXY_GRM_LOG_FORMAT": "json",
        **environment,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "gateway", "--port", str(port)],
            stdout=output,
            stderr=output,
            env=variables,
        )
    return LiveGateway(process, f"http://127.0.0.1:{port}", log)


def stop_gateway(gateway: LiveGateway) -> int:
    gateway.process.send_signal(signal.SIGTERM)
    try:
        return gateway.process.wait(60)
    except subprocess.TimeoutExpired:
        gateway.process.kill()
        raise


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    running = start_gateway(tmp_path_factory.mktemp("live"), PROXY_GRM_DIALECTS="proxy_grm")
    try:
        running.wait_until_ready()
        yield running
    finally:
        assert stop_gateway(running) == 0


@pytest.fixture
def client(gateway: LiveGateway) -> Iterator[httpx.Client]:
    gateway.wait_until_ready()
    with httpx.Client(base_url=gateway.url, timeout=120) as http:
        yield http


def toy_body(number: int, **more: Any) -> dict[str, Any]:
    """A /score body about a drawn scene."""
    return body_of(make_case(random.Random(number)), **more)


def body_of(case: ToyCase, **more: Any) -> dict[str, Any]:
    import base64
    import io

    png = io.BytesIO()
    case.picture().save(png, format="PNG")
    return {
        "question": case.question,
        "responses": list(case.responses),
        "images": [{"data": base64.b64encode(png.getvalue()).decode()}],
        **more,
    }
