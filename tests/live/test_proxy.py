"""A release with a proxy: two real engines in one gateway, the second started by its first use."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from models.release import SHIPPED_DIR

from .conftest import START_S, LiveGateway, start_gateway, stop_gateway, toy_body
from .test_engine_death import gone

RUBRIC = {"text": "1. Count accuracy (100%): the number matches the image."}


@pytest.fixture
def paired() -> Path:
    """The shipped release: a judge and a proxy, each with its own weights."""
    return SHIPPED_DIR / "tiny"


def cores(gateway: LiveGateway) -> set[int]:
    """The engine cores' processes."""
    found: set[int] = set()
    for pid in gateway.descendants():
        with contextlib.suppress(psutil.Error):  # one that is just ending has no title any more
            if "EngineCore" in " ".join(psutil.Process(pid).cmdline()):
                found.add(pid)
    return found


def verify(gateway: LiveGateway, number: int, **more: Any) -> httpx.Response:
    body = toy_body(number, rubric=RUBRIC, label=1, timeout_s=300, **more)
    return httpx.post(f"{gateway.url}/verify", json=body, timeout=320)


def assert_is_opinion(answer: dict[str, Any]) -> None:
    assert answer["status"] in ("ok", "abstain")
    if answer["status"] == "abstain":
        assert answer["reason"] in ("unreadable", "truncated")
        assert (answer["preferred"], answer["probability"], answer["reward"]) == (None, None, None)
    else:
        assert answer["preferred"] == (1 if answer["probability"] >= 0.5 else 2)
        assert answer["reward"] == (1.0 if answer["preferred"] == 1 else -1.0)
    assert answer["usage"]["prompt_tokens"] > 0


def test_the_proxy_starts_beside_the_judge_dies_alone_and_comes_back(
    paired: Path, tmp_path: Path
) -> None:
    gateway = start_gateway(tmp_path, PROXY_GRM_RELEASE=str(paired))
    try:
        gateway.wait_until_ready()
        (judge,) = cores(gateway)
        late = verify(gateway, 0, id="late")
        assert late.status_code == 200, late.text
        assert_is_opinion(late.json())
        (proxy,) = cores(gateway) - {judge}
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda number: verify(gateway, number), range(16)))
        assert [answer.status_code for answer in answers] == [200] * 16
        for answer in answers:
            assert_is_opinion(answer.json())
        judged = httpx.post(f"{gateway.url}/score", json=toy_body(1), timeout=120)
        assert judged.json()["status"] == "ok"
        assert gateway.metric("vllm:request_success_total") >= 1, "the judge's series are gone"

        os.kill(proxy, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (down := verify(gateway, 2)).status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (down.status_code, down.json()["code"]) == (503, "engine_unavailable")
        assert httpx.get(f"{gateway.url}/readyz", timeout=10).status_code == 200
        assert httpx.post(f"{gateway.url}/score", json=toy_body(3), timeout=120).is_success
        deadline = time.monotonic() + 2 * START_S
        while (back := verify(gateway, 4)).status_code != 200 and time.monotonic() < deadline:
            time.sleep(1)
        assert back.status_code == 200, back.text
        assert judge in cores(gateway)
        family = gateway.descendants()
        assert stop_gateway(gateway) == 0
        assert gone(family, within_s=30)
    finally:
        gateway.process.kill()
        gateway.process.wait()


def test_a_gateway_stopped_while_its_proxy_starts_leaves_nothing_behind(
    paired: Path, tmp_path: Path
) -> None:
    gateway = start_gateway(
        tmp_path, PROXY_GRM_RELEASE=str(paired), PROXY_GRM_PRELOAD="judge,proxy"
    )
    try:
        gateway.wait_until_ready()  # the judge starts first; the proxy's turn is next
        (judge,) = cores(gateway)
        deadline = time.monotonic() + START_S
        while not cores(gateway) - {judge} and time.monotonic() < deadline:
            time.sleep(0.1)
        family = gateway.descendants()
        assert len(cores(gateway)) == 2
        assert stop_gateway(gateway) == 0
        assert gone(family, within_s=30)
    finally:
        gateway.process.kill()
        gateway.process.wait()
