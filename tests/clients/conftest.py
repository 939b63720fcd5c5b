"""Both clients behind one way to ask, so that every test is about both."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from proxy_grm_client import AsyncClient, Client
from pydantic import SecretStr

from loadtests.drills.site import free_port
from models.release import SHIPPED_DIR
from service.app import Engines, create_app
from service.engines import GenerationRequest
from service.engines.on_demand import OnDemandEngine
from service.engines.scripted import ScriptedEngine, written_by_rote
from service.errors import ContextExceeded
from service.metrics import Metrics
from service.settings import Settings

Handler = Callable[[httpx.Request], httpx.Response]

JUDGEMENT: dict[str, Any] = {
    "id": "score_1",
    "status": "ok",
    "reason": None,
    "preferred": 1,
    "probability": 0.83,
    "order_consistent": None,
    "stopped": "complete",
    "rubric": {
        "id": "rub_" + "0" * 24,
        "text": "1. Truth (100%)",
        "criteria": [{"name": "Truth", "description": "", "weight": 1.0}],
        "justification": None,
        "record": None,
    },
    "evaluation": "The first is true.",
    "verdicts": [{"order": "given", "preferred": 1, "probability": 0.83, "text": "..."}],
    "evaluators": [],
    "panel": None,
    "agreement": None,
    "gate": None,
    "release": {"name": "tiny", "fingerprint": "f", "purpose": "demo"},
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 0, "calls": 1},
    "timing": {"queue_s": 0.0, "image_s": 0.0, "engine_s": 0.1, "total_s": 0.1},
    "cached": False,
}


@pytest.fixture
def judgement() -> dict[str, Any]:
    """What the service answers."""
    return json.loads(json.dumps(JUDGEMENT))


@pytest.fixture
def verification(judgement: dict[str, Any]) -> dict[str, Any]:
    """What the service answers to a call with a label."""
    kept = ("status", "reason", "preferred", "probability", "release", "usage", "timing")
    return {"id": "verify_1", "reward": 1.0} | {name: judgement[name] for name in kept}


@pytest.fixture
def problem() -> Callable[..., httpx.Response]:
    """Makes the service's error documents."""

    def made(status: int, code: str, retry_after: str | None = None) -> httpx.Response:
        document = {
            "type": f"urn:proxy-grm:error:{code}",
            "title": code,
            "status": status,
            "detail": f"this is {code}",
            "code": code,
            "request_id": "req_7",
        }
        headers = {"content-type": "application/problem+json"}
        if retry_after is not None:
            headers["retry-after"] = retry_after
        return httpx.Response(status, headers=headers, content=json.dumps(document))

    return made


@pytest.fixture(params=["waiting", "awaiting"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Asks with the client that waits, and in another test with the one that is awaited."""

    def waiting(client: dict[str, Any], call: str, *args: Any, **options: Any) -> Any:
        with Client(**client) as opened:
            return getattr(opened, call)(*args, **options)

    def awaiting(client: dict[str, Any], call: str, *args: Any, **options: Any) -> Any:
        async def awaited() -> Any:
            async with AsyncClient(**client) as opened:
                return await getattr(opened, call)(*args, **options)

        return asyncio.run(awaited())

    asking = waiting if request.param == "waiting" else awaiting

    def asked(
        handler: Handler | None,
        *,
        call: str = "score",
        question: str = "Which?",
        responses: Sequence[str] = ("One.", "Two."),
        client: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        settings = {"url": "http://grm", "timeout_s": 5.0} | (client or {})
        if handler is not None:
            settings["transport"] = httpx.MockTransport(handler)
        return asking(settings, call, question, list(responses), **options)

    return asked


def script(request: GenerationRequest) -> str:
    """By rote, but for what the question asks for."""
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    if "unreadable" in text:
        return "hm"
    if "too long" in text:
        raise ContextExceeded("the prompt leaves no room")
    return written_by_rote(request)


@pytest.fixture(scope="module")
def scripted() -> Callable[[], ScriptedEngine]:
    """Makes engines that answer what the question asks for."""
    return lambda: ScriptedEngine(script)


@pytest.fixture(scope="session")
def paired_release(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shipped release's judge, as judge and as proxy."""
    folder = tmp_path_factory.mktemp("paired")
    (folder / "release.toml").write_text('name = "p"\npurpose = "demo"\nbase_model = "none"\n')
    for role in ("judge", "proxy"):
        (folder / role).symlink_to(SHIPPED_DIR / "tiny" / "judge")
    return str(folder)


@pytest.fixture(scope="session")
def service_url(paired_release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service with a scripted judge and a scripted proxy listens."""
    nowhere = f"unix://{tmp_path_factory.mktemp('r')}/no.socket"
    app = create_app(
        Settings(engine="scripted", redis_url=SecretStr(nowhere), release=paired_release),
        engines=Engines(ScriptedEngine(script), OnDemandEngine(ScriptedEngine(script))),
        metrics=Metrics(CollectorRegistry()),
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", log_config=None))
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)  # examples print answers alone
    structlog.configure(wrapper_class=quiet)
    serving = threading.Thread(target=server.run)
    serving.start()
    while not server.started:
        assert serving.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    serving.join()
    structlog.reset_defaults()


def gateway_process(port: int, state: Path, *more: str, **settings: str) -> subprocess.Popen[bytes]:
    """A gateway of its own with a scripted engine, as it is started in earnest."""
    plain = {name: said for name, said in os.environ.items() if not name.startswith("PROXY_GRM_")}
    said = {"PROXY_GRM_ENGINE": "scripted", "PROXY_GRM_STATE_DIR": str(state)} | settings
    command = [sys.executable, "-m", "service", "gateway", "--port", str(port), *more]
    return subprocess.Popen(
        command, env=plain | said, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture(scope="session")
def job_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service at `jobs_url` may read sources."""
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="session")
def jobs_url(job_sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a gateway with a scripted engine, a Redis and a worker listens."""
    port = free_port()
    state = tmp_path_factory.mktemp("s")
    sources = {"PROXY_GRM_JOB_SOURCES": f"file://{job_sources}"}
    process = gateway_process(port, state, "--workers", "1", **sources)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _ready(url):
            assert process.poll() is None
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
