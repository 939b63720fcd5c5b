from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.anyio

RELIED_ON = {
    "proxy_grm_inflight": set[str](),
    "proxy_grm_queued": set[str](),
    "proxy_grm_requests_total": {"route", "outcome"},
    "proxy_grm_abstentions_total": {"reason"},
    "proxy_grm_injection_attempts_total": set[str](),
    "proxy_grm_stage_seconds_bucket": {"stage", "le"},
}


async def test_a_ready_gateway_says_what_it_serves(gateway):
    answer = await gateway.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "release": {
            "name": "tiny",
            "fingerprint": gateway.parts.release.fingerprint,
            "purpose": "demo",
        },
    }


async def test_an_engine_that_is_down_makes_the_gateway_unready_but_not_dead(gateway):
    gateway.engine.fail()
    answer = await gateway.client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert (await gateway.client.get("/livez")).json() == {"status": "alive"}
    await gateway.engine.start()
    assert (await gateway.client.get("/readyz")).status_code == 200


async def test_a_gateway_whose_engine_is_down_may_be_left_to_say_so(gateway):
    gateway.engine.fail()
    answer = await gateway.client.get("/readyz?exclude=engine")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    refused = await gateway.score()
    assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
    unknown = await gateway.client.get("/readyz?exclude=redis")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("query", ["", "?exclude=engine"])
async def test_a_draining_gateway_is_alive_and_not_ready(query, gateway):
    gateway.parts.admission.draining = True
    answer = await gateway.client.get(f"/readyz{query}")
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")
    assert (await gateway.client.get("/livez")).status_code == 200
    assert (await gateway.client.get("/metrics")).status_code == 200


async def test_an_overloaded_gateway_is_alive_and_ready(start_gateway, until):
    gateway = await start_gateway(seconds=60, admission={"running": 1, "waiting": 0})
    working = asyncio.create_task(gateway.score())
    await until(lambda: gateway.engine.running == 1)
    assert (await gateway.score()).status_code == 429
    assert (await gateway.client.get("/livez")).status_code == 200
    assert (await gateway.client.get("/readyz")).status_code == 200
    working.cancel()
    await until(lambda: gateway.engine.running == 0)


async def test_the_series_that_others_rely_on_are_there_with_their_labels(gateway):
    await gateway.score()
    answer = await gateway.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert RELIED_ON.items() <= found.items()


async def test_known_labels_are_there_before_anything_has_happened(gateway):
    text = (await gateway.client.get("/metrics")).text
    for reason in ("unreadable", "truncated", "disagreement"):
        assert f'proxy_grm_abstentions_total{{reason="{reason}"}} 0.0' in text
    for stage in ("queue", "image", "engine", "total"):
        assert f'proxy_grm_stage_seconds_count{{stage="{stage}"}} 0.0' in text


async def test_two_gateways_in_one_process_count_apart(start_gateway):
    first, second = await start_gateway(), await start_gateway()
    await first.score()
    counted = {"route": "/score", "outcome": "ok"}
    assert first.count("proxy_grm_requests_total", **counted) == 1
    assert second.count("proxy_grm_requests_total", **counted) == 0


_IMPORTED = """
import sys
import service.api, service.app
from service.settings import Settings
service.app.create_app(Settings(engine="scripted"))
print(sorted({"torch", "torchvision", "transformers", "vllm"} & set(sys.modules)))
"""


def test_a_gateway_with_another_engine_imports_neither_torch_nor_vllm():
    ran = subprocess.run(
        [sys.executable, "-c", _IMPORTED],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.defpath},
        check=True,
    )
    assert ran.stdout.strip() == "[]"


async def test_metrics_may_have_a_port_of_their_own(start_gateway):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gateway = await start_gateway(images=None, metrics_port=port)
    assert (await gateway.client.get("/metrics")).status_code == 404
    async with httpx.AsyncClient() as scraper:
        told = await scraper.get(f"http://127.0.0.1:{port}/metrics")
    assert "proxy_grm_inflight 0.0" in told.text
