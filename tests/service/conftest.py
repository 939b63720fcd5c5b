"""Gateways with scripted engines, and one real Redis for all of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import resource
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import structlog
import uvicorn
from fastapi import FastAPI
from PIL import Image
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from models.prompts import DEFAULT_DIR
from models.release import SHIPPED_DIR, Release, load_release
from service.api.gateway import Gateway
from service.app import Engines, Served, compose, create_app
from service.embedded_redis import EmbeddedRedis
from service.engines.on_demand import OnDemandEngine
from service.engines.scripted import Script, ScriptedEngine
from service.heads import bounded_heads
from service.images import Images
from service.jobs.connection import Connection
from service.metrics import Metrics
from service.process_pool import ProcessPool
from service.settings import LimitSettings, Settings
from service.store import Store

RELEASE_TOML = """\
name = "small"
purpose = "demo"
base_model = "none"
context_tokens = 4096

[images]
maximum = 4
most_pixels = 12544
"""

IN_MEMORY = "http://gateway"
COMPARISON: dict[str, Any] = {
    "question": "How many circles are there?",
    "responses": ["There are two circles.", "There are three circles."],
}


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that answers, and what tests look at while it does.

    Attributes:
        engine: the judge's.
        proxy: the proxy's, where the release has one.
    """

    app: FastAPI
    engine: ScriptedEngine
    proxy: ScriptedEngine
    metrics: Metrics
    client: httpx.AsyncClient

    @property
    def transport(self) -> httpx.AsyncBaseTransport | None:
        """What a second client needs to reach a gateway in memory; None where it listens."""
        if str(self.client.base_url) != IN_MEMORY:
            return None
        return httpx.ASGITransport(self.app, raise_app_exceptions=False)

    @property
    def parts(self) -> Gateway:
        """What the composition root built."""
        return self.app.state.gateway

    async def score(self, **changes: Any) -> httpx.Response:
        """`POST /score` of a good comparison, changed."""
        return await self.client.post("/score", json=COMPARISON | changes)

    async def verify(self, **changes: Any) -> httpx.Response:
        """`POST /verify` of a good comparison and rubric, changed."""
        asked = COMPARISON | {"rubric": {"text": "1. Count (100%): it is right."}}
        return await self.client.post("/verify", json=asked | changes)

    def count(self, name: str, **labels: str) -> float:
        """A sample's value; 0 while there is none."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals belong to the test runner."""
        yield


def _warnings_alone(_: Any, method: str, event: structlog.typing.EventDict) -> Any:
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


@pytest.fixture(scope="session", autouse=True)
def plain_surroundings() -> Iterator[None]:
    """No settings from outside, and log lines that cost little to write."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("PROXY_GRM_"):
                patch.delenv(name)
        structlog.configure(
            processors=[
                _warnings_alone,
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
        yield
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis."""
    embedded = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    url = asyncio.run(embedded.start())
    with _patient_client(url) as client:
        client.ping()
    yield url
    asyncio.run(embedded.stop())


def _patient_client(url: str) -> redis.Redis:
    """A client that waits until a Redis that has just been started listens."""
    return redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.01), retries=200))


@pytest.fixture
def no_more_files() -> Callable[[], AbstractContextManager[None]]:
    """While it lasts nothing can be opened or started, as on a machine that runs short."""

    @contextmanager
    def run_short() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return run_short


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a real Redis in which nothing is kept yet.

    It is waited for: what a store does not wait for, a slow machine would lose now and then.
    """
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return f"{redis_server}?socket_timeout=600&socket_connect_timeout=600"


@pytest.fixture(scope="session")
def plain_release(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the shipped release without proxy and calibration.

    Probabilities are then what a script says. At most 4 pictures of 12,544 pixels.
    """
    folder, shipped = tmp_path_factory.mktemp("plain"), SHIPPED_DIR / "tiny"
    config, proxy, _ = (shipped / "release.toml").read_text().partition("\n[proxy]")
    assert proxy
    (folder / "release.toml").write_text(config)
    for part in ("judge", "prompts"):
        (folder / part).symlink_to(shipped / part)
    return str(folder)


@pytest.fixture(scope="session")
def release(plain_release: str) -> Release:
    """`plain_release`, loaded."""
    return load_release(plain_release)


@pytest.fixture(scope="session")
def bare_release(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a release without a proxy."""
    return str(_release_folder(tmp_path_factory.mktemp("bare")))


@pytest.fixture(scope="session")
def proxy_release(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the same release with a proxy: the judge's own weights, asked as one."""
    folder = _release_folder(tmp_path_factory.mktemp("paired"))
    (folder / "proxy").symlink_to(folder / "judge")
    return str(folder)


def _release_folder(folder: Path) -> Path:
    (folder / "release.toml").write_text(RELEASE_TOML)
    (folder / "judge").symlink_to(SHIPPED_DIR / "tiny" / "judge")
    (folder / "prompts").symlink_to(DEFAULT_DIR)
    return folder


@pytest.fixture(scope="session")
def shared_images(release: Release) -> Iterator[Images]:
    """Picture processes for every gateway that brings none of its own; they start slowly."""
    pool = ProcessPool()
    yield Images(LimitSettings(), release.config.images.most_pixels, pool)
    asyncio.run(pool.close())


@asynccontextmanager
async def running(
    settings: Settings,
    script: Script | None = None,
    *,
    proxy: ScriptedEngine | None = None,
    images: Images | None = None,
    seconds: float = 0.0,
    listening: bool = False,
) -> AsyncGenerator[RunningGateway]:
    """Runs a gateway: in memory, or on a free port where disconnects matter.

    Without `images` it starts and stops all its parts itself.
    """
    engine = ScriptedEngine(script, seconds)
    proxy = proxy or ScriptedEngine()
    engines = Engines(engine, OnDemandEngine(proxy))
    metrics = Metrics(CollectorRegistry())
    app = create_app(settings, engines=engines, metrics=metrics)
    async with AsyncExitStack() as stack:
        if images is None:
            await stack.enter_async_context(app.router.lifespan_context(app))
        else:
            app.state.gateway = await _composed(settings, images, engines, metrics, stack)
        if listening:
            url = await stack.enter_async_context(_listening(app, settings.limits))
            client = httpx.AsyncClient(base_url=url)
        else:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url=IN_MEMORY)
        await stack.enter_async_context(client)
        yield RunningGateway(app, engine, proxy, metrics, client)


async def _composed(
    settings: Settings,
    images: Images,
    engines: Engines,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> Gateway:
    """What the composition root builds, around pictures' processes that are there already."""
    assert settings.redis_url is not None
    store = Store(settings.redis_url.get_secret_value(), settings.cache, metrics)
    stack.push_async_callback(store.close)
    connection = Connection(settings.redis_url.get_secret_value())
    stack.push_async_callback(connection.close)
    stack.push_async_callback(engines.stop)
    await engines.start(settings.preload)
    release = load_release(settings.release)
    gateway = compose(settings, [Served(release, engines)], (images, store, connection), metrics)
    stack.push_async_callback(gateway.honesty.close)
    stack.push_async_callback(gateway.roster.close)
    return gateway


@asynccontextmanager
async def _listening(app: FastAPI, limits: LimitSettings) -> AsyncGenerator[str]:
    config = uvicorn.Config(
        app,
        port=0,
        http=bounded_heads(limits.head_s, limits.body_s),
        lifespan="off",
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


@pytest.fixture
async def start_gateway(
    redis_url: str, shared_images: Images, plain_release: str
) -> AsyncGenerator[Callable[..., Awaitable[RunningGateway]]]:
    """Starts gateways that stop with the test: a script, options of `running`, any setting."""
    async with AsyncExitStack() as stack:

        async def start(
            script: Script | None = None,
            *,
            proxy: ScriptedEngine | None = None,
            seconds: float = 0.0,
            listening: bool = False,
            images: Images | None = shared_images,
            **changes: Any,
        ) -> RunningGateway:
            usual = {"engine": "scripted", "redis_url": redis_url, "release": plain_release}
            settings = Settings(**usual | changes)
            options: Any = {"proxy": proxy, "seconds": seconds}
            options |= {"listening": listening, "images": images}
            return await stack.enter_async_context(running(settings, script, **options))

        yield start


@pytest.fixture
async def gateway(start_gateway: Callable[..., Awaitable[RunningGateway]]) -> RunningGateway:
    """A gateway whose engine answers by rote."""
    return await start_gateway()


@pytest.fixture(scope="module")
async def shared_gateway(redis_server: str, plain_release: str) -> AsyncGenerator[RunningGateway]:
    """One gateway for a module's tests, with parts that are all its own."""
    settings = Settings(engine="scripted", redis_url=SecretStr(redis_server), release=plain_release)
    async with running(settings) as started:
        yield started


class LocalServer:
    """A real server on loopback that answers as a test says, however badly.

    Attributes:
        answer: takes a request's JSON and returns status and body, or the bytes of a whole
            HTTP answer; None leaves the caller hanging.
        asked: path, headers and JSON of every request, in order of arrival.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Any], tuple[int, Any] | bytes | None] = lambda _: None
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> asyncio.Server:
        """Listens on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    def hang_up(self) -> None:
        """Ends every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in head[1:] if line)
            }
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.asked.append((head[0].split()[1], headers, body))
            answer = self.answer(body)
            if answer is None:
                await reader.read()  # until the caller hangs up
            else:
                writer.write(answer if isinstance(answer, bytes) else _http(*answer))
                await writer.drain()
        writer.close()
        self._writers.discard(writer)


def _http(status: int, body: Any) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


@pytest.fixture
async def local_server() -> AsyncGenerator[LocalServer]:
    """A server that answers as the test says."""
    made = LocalServer()
    server = await made.start()
    yield made
    made.hang_up()
    server.close()


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Waits until something has become true."""

    async def waited(condition: Callable[[], bool], within_s: float = 5.0) -> None:
        for _ in range(int(within_s / 0.01)):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not so within {within_s} s")

    return waited


@pytest.fixture
def late() -> Callable[..., Awaitable[httpx.Response]]:
    """Asks with ever more time until it runs out in the engine, and not on the way there.

    `ask` takes the seconds; `passes` are the generations that have begun by then.
    """

    async def answer_to(
        ask: Callable[[float], Awaitable[httpx.Response]], engine: ScriptedEngine, passes: int = 1
    ) -> httpx.Response:
        for timeout_s in (0.05, 0.5, 5, 50):
            engine.requests.clear()
            engine.cancelled = 0
            answer = await ask(timeout_s)
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            if len(engine.requests) == passes:
                return answer
        raise AssertionError(f"never {passes} passes")

    return answer_to


@pytest.fixture
def picture() -> Callable[..., dict[str, str]]:
    """Makes a picture as it stands in a request."""

    def made(size: tuple[int, int] = (64, 48), color: str = "teal") -> dict[str, str]:
        png = io.BytesIO()
        Image.new("RGB", size, color).save(png, "PNG")
        return {"data": base64.b64encode(png.getvalue()).decode()}

    return made


@pytest.fixture
def lone_redis(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, int]]:
    """URL and process id of a Redis that a test may end."""
    embedded = EmbeddedRedis(tmp_path_factory.mktemp("lone"))
    url = asyncio.run(embedded.start())
    with _patient_client(url) as client:
        process_id = client.info()["process_id"]
    yield url, process_id
    asyncio.run(embedded.stop())
