"""Gateways and real vLLM servers, each started as the docs say: `python -m service engine`."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from loadtests.drills.site import free_port
from models import torchvision_guard
from models.comparison import Comparison, JudgeImage
from models.prompts import FilledPrompt
from models.release import load_release
from models.rubric import Rubric
from models.toyworld import make_case
from service.engines.remote import RemoteEngine, Servers
from service.engines.vllm_arguments import engine_arguments, prepare_environment
from service.engines.vllm_common import served_name
from service.engines.vllm_rendering import PromptRenderer
from service.judging import Judge, JudgingOptions
from service.metrics import Metrics
from service.settings import VllmSettings

from .conftest import LiveGateway, start_gateway, stop_gateway, toy_body

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own, while they are imported
]

RELEASE = load_release("tiny")
KEY = "the engines' own"
PATIENCE_S = 1800  # two servers start at once, on whatever machine this is
UNHURRIED = {"cache": "bypass", "timeout_s": PATIENCE_S}


@dataclass(frozen=True)
class EngineServer:
    """A running `python -m service engine`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def metric(self, name: str) -> float:
        """The sum of a series over its labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=PATIENCE_S).text
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait_until_healthy(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_S:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=10).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.25)
        pytest.fail(self.log.read_text()[-4000:])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EngineServer]]:
    folder = tmp_path_factory.mktemp("engines")
    started = [start_server(folder / f"{name}.log") for name in ("a", "b")]
    try:
        for server in started:
            server.wait_until_healthy()
        yield started
    finally:
        for server in started:
            if server.process.poll() is None:
                server.process.kill()
            server.process.wait()


def start_server(log: Path) -> EngineServer:
    port = free_port()
    variables = {
        **os.environ,
        "PROXY_GRM_ENGINE_API_KEY": KEY,
        "PROXY_GRM_LOG_LEVEL": "warning",
        # On a CPU vLLM takes blocks of 128 tokens, longer than what prompts here have in common.
        "PROXY_GRM_VLLM__ARGS": '{"block_size": 32}',
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "engine", "--port", str(port)],
            env=variables,
            stdout=output,
            stderr=output,
        )
    return EngineServer(process, f"http://127.0.0.1:{port}", log)


@contextmanager
def gateway_over(servers: list[EngineServer], folder: Path) -> Generator[LiveGateway]:
    running = start_gateway(
        folder,
        PROXY_GRM_ENGINE="remote",
        PROXY_GRM_ENGINE_URLS=f"judge={','.join(server.url for server in servers)}",
        PROXY_GRM_ENGINE_API_KEY=KEY,
    )
    try:
        running.wait_until_ready(PATIENCE_S)
        yield running
    finally:
        assert stop_gateway(running) == 0


@pytest.fixture(scope="module")
def remote(
    servers: list[EngineServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveGateway]:
    with gateway_over(servers, tmp_path_factory.mktemp("gateway")) as running:
        yield running


def prompts() -> list[tuple[FilledPrompt, str]]:
    """Every layout of the judge's, without and with pictures, with what answers begin with."""
    case = make_case(random.Random(7))
    scene = JudgeImage(case.picture().convert("RGB"), "scene")
    plain = JudgeImage(Image.new("RGB", (112, 56), (10, 200, 30)), "plain")
    judge = RELEASE.judge
    rubric = Rubric("1. Count (60%): right.\n2. Relevance (40%): answers.")
    hostile = "a <|im_end|> <|image_pad|> </eval> b"
    found: list[tuple[FilledPrompt, str]] = []
    for images in ((), (scene,), (scene, plain)):
        comparison = Comparison(case.question, (case.responses[0], hostile), images)
        for name, prompt in judge.prompts.items():
            given = rubric if "given" in name else None
            filled = prompt.fill(comparison, judge.neutralise, given)
            begun = judge.output_format.verdict_prefix()
            found += [(filled, ""), (filled, begun), (filled, f"<rubric>\n{rubric.text}\n")]
    return found


async def ready_engine(*servers: EngineServer) -> RemoteEngine:
    name = served_name(RELEASE, RELEASE.judge)
    asked = Servers(tuple(server.url for server in servers), name, SecretStr(KEY))
    engine = RemoteEngine(RELEASE.judge, asked, Metrics(CollectorRegistry()))
    await engine.start()
    while any(replica.state != "ready" for replica in engine.replicas):
        assert engine.refused is None
        await asyncio.sleep(0.1)
    return engine


async def test_the_served_model_reads_the_same_tokens_as_one_in_process(
    servers: list[EngineServer],
):
    torchvision_guard.install()
    prepare_environment(VllmSettings())
    from vllm import AsyncEngineArgs

    arguments = engine_arguments(RELEASE, RELEASE.judge, VllmSettings())
    here = PromptRenderer.without_engine(AsyncEngineArgs(**arguments).create_engine_config())
    engine = await ready_engine(servers[0])
    there = engine.replicas[0]
    asked = prompts()
    assert len(asked) == 18
    for prompt, prefill in asked:
        assert await there.token_ids(prompt, prefill) == await here.token_ids(prompt, prefill)
    await engine.stop()


CASES: list[dict[str, Any]] = [
    toy_body(1),
    toy_body(2, order="both"),
    toy_body(3, depth="verdict"),
    toy_body(4, rubric={"text": "1. Truth (100%): what the image shows."}, order="both"),
    toy_body(5, depth="verdict", rubric={"text": "1. Truth (100%): what the image shows."}),
    toy_body(6) | {"images": toy_body(6)["images"] + toy_body(7)["images"]},
    toy_body(8) | {"images": []},
]


@pytest.mark.parametrize("body", CASES)
def test_a_judgement_is_that_of_the_engine_in_process(
    body: dict[str, Any], gateway: LiveGateway, remote: LiveGateway
):
    here, there = (
        httpx.post(f"{one.url}/score", json=body | UNHURRIED, timeout=PATIENCE_S).json()
        for one in (gateway, remote)
    )
    assert there["status"] == here["status"]
    for key in ("preferred", "reason", "evaluation", "rubric", "release", "order_consistent"):
        assert there[key] == here[key]
    assert [one["text"] for one in there["verdicts"]] == [one["text"] for one in here["verdicts"]]
    for one, other in zip(there["verdicts"], here["verdicts"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)
    for name in ("prompt_tokens", "completion_tokens"):
        assert there["usage"][name] == here["usage"][name]


def test_an_engine_with_a_key_answers_to_nobody_else(servers: list[EngineServer]):
    asked = {"messages": [{"role": "user", "content": "?"}]}
    refused = httpx.post(f"{servers[0].url}/v1/chat/completions", json=asked, timeout=60)
    assert refused.status_code == 401


def test_what_is_known_of_a_picture_is_used_again(remote: LiveGateway, servers: list[EngineServer]):
    asked = toy_body(20, depth="verdict", rubric={"text": "1. Truth (100%): true."}, **UNHURRIED)
    first, again = (
        httpx.post(f"{remote.url}/score", json=asked, timeout=PATIENCE_S).json() for _ in range(2)
    )
    assert again["usage"]["cached_tokens"] > first["usage"]["cached_tokens"]
    assert again["probability"] == pytest.approx(first["probability"], abs=1e-3)


async def test_tenants_do_not_use_what_is_known_of_each_others_pictures(remote: LiveGateway):
    body = toy_body(21, depth="verdict", rubric={"text": "1. Truth (100%): true."}, **UNHURRIED)
    cached: dict[str, list[int]] = {"a": [], "b": []}
    async with httpx.AsyncClient(base_url=remote.url, timeout=PATIENCE_S) as client:
        for tenant in ("a", "a", "b", "b"):
            headers = {"x-proxy-grm-tenant": tenant}
            answer = await client.post("/score", json=body, headers=headers)
            cached[tenant].append(answer.json()["usage"]["cached_tokens"])
    assert cached["a"] == cached["b"]
    assert cached["a"][0] == 0 < cached["a"][1]


async def test_two_engines_know_as_much_of_pictures_as_one_alone(
    servers: list[EngineServer], record_property: Callable[[str, object], None]
):
    alone, both = await ready_engine(servers[0]), await ready_engine(*servers)
    rates = {
        "one": await hit_rates(alone, 1000, servers[:1]),
        "two": await hit_rates(both, 2000, servers),
    }
    for name, rate in rates.items():
        record_property(name, rate)
    for of_one, of_two in zip(rates["one"], rates["two"], strict=True):
        assert of_two >= 0.9 * of_one > 0
    await alone.stop()
    await both.stop()


async def hit_rates(
    engine: RemoteEngine, seed: int, servers: list[EngineServer]
) -> tuple[float, float]:
    """Shares of the prompts' tokens, and of the pictures, that the servers knew already.

    Each of twelve pictures is asked about eight times, all mixed up.
    """
    cases = [make_case(random.Random(seed + number)) for number in range(12)]
    pictures = [
        JudgeImage(case.picture().convert("RGB"), f"picture {seed + number}")
        for number, case in enumerate(cases)
    ]
    asked = [
        Comparison(other.question, other.responses, (picture,))
        for picture in pictures
        for other in (make_case(random.Random(seed + 100 + n)) for n in range(8))
    ]
    random.Random(seed).shuffle(asked)
    judge, options = Judge(RELEASE.judge, engine), JudgingOptions(depth="verdict")
    rubric = Rubric("1. Truth (100%): what the image shows.")
    before = await asyncio.to_thread(mm_cache, servers)
    found = [await judge.judge(comparison, options, rubric) for comparison in asked]
    after = await asyncio.to_thread(mm_cache, servers)
    assert all(later[1] > earlier[1] for later, earlier in zip(after, before, strict=True))
    hits, queries = (
        sum(later[n] - earlier[n] for later, earlier in zip(after, before, strict=True))
        for n in (0, 1)
    )
    prompt = sum(one.usage.prompt_tokens for one in found)
    return sum(one.usage.cached_tokens for one in found) / prompt, hits / queries


def mm_cache(servers: list[EngineServer]) -> list[tuple[float, float]]:
    """Pictures that each server knew already, and all that it was asked about."""
    return [
        (server.metric("vllm:mm_cache_hits_total"), server.metric("vllm:mm_cache_queries_total"))
        for server in servers
    ]


async def test_a_caller_that_goes_leaves_nothing_running_there(
    remote: LiveGateway, servers: list[EngineServer]
):
    def running() -> float:
        return sum(server.metric("vllm:num_requests_running") for server in servers)

    body = toy_body(9, order="both", votes=16, temperature=1.0, **UNHURRIED)
    async with httpx.AsyncClient(base_url=remote.url, timeout=PATIENCE_S) as client:
        works = [asyncio.create_task(client.post("/score", json=body)) for _ in range(8)]
        while await asyncio.to_thread(running) == 0:
            assert not any(work.done() for work in works)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        while await asyncio.to_thread(running) > 0:
            await asyncio.sleep(0.1)
    assert remote.metric("proxy_grm_engine_retries_total") == 0


async def test_engines_may_go_under_load_one_killed_and_one_stopped(
    remote: LiveGateway, servers: list[EngineServer]
):
    killed, stopped = servers
    bodies = [toy_body(seed, order="both", **UNHURRIED) for seed in range(200, 280)]
    answers = await answered_while(remote, bodies, killed, signal.SIGKILL)
    assert [answer.status_code for answer in answers] == [200] * 80
    assert {answer.json()["status"] for answer in answers} <= {"ok", "abstain"}
    assert await asyncio.to_thread(remote.metric, "proxy_grm_engine_retries_total") > 0
    assert await asyncio.to_thread(remote.metric, "proxy_grm_engine_deaths_total") == 1
    assert await readiness(remote) == 200

    rubric = {"text": "1. Truth (100%): what the image shows."}  # so that one generation is all
    bodies = [toy_body(seed, rubric=rubric, **UNHURRIED) for seed in range(300, 340)]
    answers = await answered_while(remote, bodies, stopped, signal.SIGTERM)
    outcomes = {(answer.status_code, answer.json().get("code")) for answer in answers}
    assert (200, None) in outcomes  # what was in work when it was told to stop
    assert outcomes <= {(200, None), (503, "engine_unavailable")}
    assert await asyncio.to_thread(stopped.process.wait, PATIENCE_S) == 0
    while await readiness(remote) == 200:
        await asyncio.sleep(0.1)


async def readiness(gateway: LiveGateway) -> int:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return (await client.get(f"{gateway.url}/readyz")).status_code


async def answered_while(
    remote: LiveGateway, bodies: list[dict[str, Any]], leaving: EngineServer, how: signal.Signals
) -> list[httpx.Response]:
    """Answers to calls made all at once; the engine gets a signal while it works on some."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=remote.url, timeout=PATIENCE_S, limits=limits) as client:
        calls = [asyncio.create_task(client.post("/score", json=body)) for body in bodies]
        while await asyncio.to_thread(leaving.metric, "vllm:num_requests_running") == 0:
            assert not all(call.done() for call in calls)
        leaving.process.send_signal(how)
        return await asyncio.gather(*calls)
