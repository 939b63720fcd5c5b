"""The engine's process is killed under load; no call ever gets an invented score."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from .conftest import start_gateway, toy_body


def test_calls_fail_typed_and_the_engine_comes_back(tmp_path: Path) -> None:
    gateway = start_gateway(tmp_path)
    try:
        gateway.wait_until_ready()
        outcomes, red = asyncio.run(_kill_under_load(gateway.url, gateway.engine_pid()))
        assert red, "/readyz never turned red"
        refused = [(status, code) for status, code, _ in outcomes if status != 200]
        assert refused
        assert set(refused) == {(503, "engine_unavailable")}
        for status, _, answer in outcomes:
            if status == 200:
                assert answer["status"] == "abstain" or answer["probability"] is not None
        gateway.wait_until_ready()
        assert gateway.process.poll() is None
        answer = httpx.post(f"{gateway.url}/score", json=toy_body(1), timeout=60).json()
        assert answer["status"] == "ok"
        assert gateway.metric("proxy_grm_engine_deaths_total") == 1
        family = gateway.descendants()
        gateway.process.kill()
        gateway.process.wait()
        assert gone(family, within_s=30), "a gateway killed with -9 left processes behind"
    finally:
        gateway.process.kill()


def test_an_engine_that_hangs_is_replaced_and_its_calls_fail_typed(tmp_path: Path) -> None:
    gateway = start_gateway(tmp_path, PROXY_GRM_ENGINE_PATIENCE_S="3")
    try:
        gateway.wait_until_ready()
        hung = gateway.engine_pid("Worker")
        os.kill(hung, signal.SIGSTOP)
        body = toy_body(2, cache="bypass") | {"timeout_s": 600}
        answer = httpx.post(f"{gateway.url}/score", json=body, timeout=600)
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")
        assert gateway.metric("proxy_grm_engine_deaths_total") == 1
        gateway.wait_until_ready()
        assert gone({hung}, within_s=30)
        answer = httpx.post(f"{gateway.url}/score", json=body, timeout=600)
        assert answer.json()["status"] == "ok"
        assert "engine hangs" in gateway.log.read_text()
    finally:
        gateway.process.kill()
        gateway.process.wait()


def gone(pids: set[int], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


async def _kill_under_load(url: str, pid: int) -> tuple[list[tuple[int, str | None, Any]], bool]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:

        async def call(seed: int) -> tuple[int, str | None, Any]:
            body = toy_body(seed, cache="bypass", order="both")
            response = await http.post("/score", json=body)
            answer = response.json()
            return response.status_code, answer.get("code"), answer

        calls = [asyncio.create_task(call(seed)) for seed in range(96)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        os.kill(pid, signal.SIGKILL)
        red = False
        for _ in range(100):
            if (await http.get("/readyz")).status_code == 503:
                red = True
                break
            await asyncio.sleep(0.05)
        return await asyncio.gather(*calls), red
