"""`python -m service` as a process: what it prints, how it stops, what it leaves behind."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from loadtests.drills.site import free_port

GOOD: dict[str, Any] = {"question": "Which?", "responses": ["One.", "Two."], "cache": "bypass"}


@dataclass
class Running:
    """A gateway process, its address and what it has said."""

    process: subprocess.Popen[bytes]
    url: str
    said: Path
    temporary: Path
    children: list[psutil.Process] = field(default_factory=list)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def score(self, **changes: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/score", json=GOOD | changes, timeout=60)

    def events(self, named: str | None = None) -> list[dict[str, Any]]:
        """What it has logged in whole lines: it may be writing one."""
        lines = self.said.read_text().rpartition("\n")[0].splitlines()
        events = [json.loads(line) for line in lines]
        return [event for event in events if named in (None, event["event"])]

    def inflight(self) -> float:
        text = self.get("/metrics").text
        return float(text.partition("\nproxy_grm_inflight ")[2].split("\n")[0])


def environment(temporary: Path, **settings: str) -> dict[str, str]:
    """What a process needs, and nothing of the surroundings."""
    return {
        "PATH": os.defpath,
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(temporary),
        "PROXY_GRM_ENGINE": "scripted",
        "PROXY_GRM_STATE_DIR": str(temporary / "state"),
        **{f"PROXY_GRM_{name}": value for name, value in settings.items()},
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "service", *arguments]


def ran(temporary: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        command(*arguments),
        env=environment(temporary, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def eventually(condition: Callable[[], bool], within_s: float = 120.0) -> bool:
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        if condition():
            return True
        time.sleep(0.02)
    return False


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name is short enough for a socket in it."""
    return tmp_path_factory.mktemp("g")


@pytest.fixture
def start(temporary: Path) -> Iterator[Callable[..., Running]]:
    """Starts gateways and waits until they are ready."""
    started: list[Running] = []

    def one(**settings: str) -> Running:
        port = free_port()
        said = temporary / "said"
        with said.open("wb") as errors:
            process = subprocess.Popen(
                command("gateway", "--port", str(port)),
                env=environment(temporary, **settings),
                stderr=errors,
            )
        running = Running(process, f"http://127.0.0.1:{port}", said, temporary)
        started.append(running)
        assert eventually(lambda: answers(running.url)), said.read_text()
        running.children = psutil.Process(process.pid).children(recursive=True)
        return running

    yield one
    for running in started:
        running.process.kill()
        running.process.wait(10)
        for child in filter(alive, running.children):
            child.kill()


@pytest.fixture(scope="module")
def slow_picture() -> bytes:
    """A file that keeps a request in work for about a second when it is sent four times."""
    png = io.BytesIO()
    Image.new("RGB", (4990, 5000), "teal").save(png, "PNG", compress_level=1)
    return png.getvalue()


def variants(picture: bytes, first: int) -> list[dict[str, str]]:
    """Four files of the same picture: none is known from another."""
    files = [picture + struct.pack(">I", first + n) for n in range(4)]
    return [{"data": base64.b64encode(file).decode()} for file in files]


def working(running: Running, picture: bytes, count: int) -> list[Future[httpx.Response]]:
    """Requests that are in work when this returns."""
    pool = ThreadPoolExecutor(count)
    asked = [
        pool.submit(running.score, images=variants(picture, 4 * n), id=f"n{n}")
        for n in range(count)
    ]
    assert eventually(lambda: running.inflight() == count)
    pool.shutdown(wait=False)
    return asked


def test_sigterm_finishes_what_is_running_and_takes_nothing_new(
    start: Callable[..., Running], slow_picture: bytes
):
    running = start()
    assert any("redis" in child.name() for child in running.children)
    works = working(running, slow_picture, 3)
    running.process.send_signal(signal.SIGTERM)
    assert eventually(lambda: running.get("/readyz").status_code == 503, 3)
    refused = running.score()
    assert not all(work.done() for work in works)
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert refused.headers["retry-after"] == "5"
    assert running.get("/readyz").json()["code"] == "draining"
    assert running.get("/livez").status_code == 200
    finished = [work.result(30) for work in works]
    assert [answer.status_code for answer in finished] == [200] * 3
    assert sorted(answer.json()["id"] for answer in finished) == ["n0", "n1", "n2"]
    assert running.process.wait(10) == 0
    assert eventually(lambda: not any(alive(child) for child in running.children), 2)
    assert {path.name for path in running.temporary.iterdir()} <= {"said", "state"}
    assert "Traceback" not in running.said.read_text()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_gateway_stops_soon(sent: signal.Signals, start: Callable[..., Running]):
    running = start()
    assert running.score().status_code == 200
    running.process.send_signal(sent)
    assert running.process.wait(5) == 0
    assert eventually(lambda: not any(alive(child) for child in running.children), 2)
    [draining] = running.events("draining")
    assert draining["signal"] == sent.name


def test_a_second_sigterm_stops_at_once(start: Callable[..., Running], slow_picture: bytes):
    running = start()
    works = working(running, slow_picture, 40)
    running.process.send_signal(signal.SIGTERM)
    assert eventually(lambda: running.get("/readyz").status_code == 503, 3)
    running.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert running.process.wait(20) in (0, -signal.SIGTERM)
    assert time.monotonic() - began < 10  # the drain alone may take 30
    answers = [work.result(5) for work in works if work.exception(5) is None]
    assert {answer.status_code for answer in answers} <= {200, 503}  # never a bare 500
    assert len([answer for answer in answers if answer.status_code == 200]) < len(works)
    assert eventually(lambda: not any(alive(child) for child in running.children), 5)
    assert "Traceback" not in running.said.read_text()


def test_a_gateway_that_does_not_finish_in_time_is_stopped_all_the_same(
    start: Callable[..., Running], slow_picture: bytes
):
    running = start(DRAIN_S="0.2")
    working(running, slow_picture, 8)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(15) == 0
    assert eventually(lambda: not any(alive(child) for child in running.children), 2)
    assert running.events("stopping with work unfinished")


@pytest.mark.parametrize("settled", [True, False], ids=["at work", "just started"])
def test_a_gateway_that_is_killed_leaves_no_process_behind(
    settled: bool, start: Callable[..., Running]
):
    running = start()
    assert len(running.children) >= 2
    if settled:
        png = io.BytesIO()
        Image.new("RGB", (64, 64)).save(png, "PNG")
        picture = {"data": base64.b64encode(png.getvalue()).decode()}
        assert running.score(images=[picture]).status_code == 200
    running.process.kill()
    running.process.wait(5)
    assert eventually(lambda: not any(alive(child) for child in running.children), 4)


STUBBORN = """
import asyncio
from service.evaluators.scripted import ScriptedEvaluator

class Stubborn(ScriptedEvaluator):
    async def evaluate(self, comparison, rubric, priority="interactive"):
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                pass
"""


def test_an_evaluator_that_does_not_heed_cancelling_ends_with_the_gateway(
    start: Callable[..., Running], temporary: Path
):
    (temporary / "stubborn.py").write_text(STUBBORN)
    settings = {"kind": "stubborn:Stubborn", "timeout_s": 0.1}
    running = start(EVALUATORS=json.dumps({"stubborn": settings}))
    asked = running.score(evaluators=["stubborn"])
    assert asked.json()["evaluators"][0]["status"] == "timeout"
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    assert eventually(lambda: not any(alive(child) for child in running.children), 2)
    assert running.events("stopping with tasks that do not end")


def test_it_logs_json_lines_and_says_where_it_listens(start: Callable[..., Running]):
    running = start()
    assert eventually(lambda: running.events("ready") != [])
    [ready] = running.events("ready")
    assert ready["url"] == running.url
    httpx.post(f"{running.url}/score", content=b"no json", headers={"x-request-id": "mine"})
    assert eventually(lambda: running.events("request") != [])  # its line follows the answer
    [line] = running.events("request")
    assert line["request_id"] == "mine"
    assert (line["status"], line["outcome"]) == (422, "invalid_request")
    assert all({"event", "level", "timestamp"} <= set(event) for event in running.events())


def test_on_port_0_it_says_which_port_it_took(temporary: Path):
    ready = url_when_ready(temporary, "--port", "0")
    assert not ready.endswith(":0")


def test_a_signal_in_the_middle_of_a_log_line_is_heeded(temporary: Path):
    for _ in range(3):  # the line is read, and the signal sent, before its writer goes on
        assert url_when_ready(temporary, "--port", str(free_port())).startswith("http://")


def url_when_ready(temporary: Path, *arguments: str) -> str:
    """Starts a gateway, stops it the moment it says that it is ready, and returns its URL."""
    with subprocess.Popen(
        command("gateway", *arguments),
        env=environment(temporary),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if '"ready"' in line:
                url = json.loads(line)["url"]
                process.send_signal(signal.SIGTERM)
        ended = process.wait()
        watchdog.cancel()
    assert ended == 0
    return url


def test_a_port_that_is_taken_is_told_and_leaves_nothing_behind(temporary: Path):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = ran(temporary, "gateway", "--port", str(port))
    assert ended.returncode == 2
    assert f"port {port}: Address already in use. Choose another" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(temporary.iterdir()) == []  # it did not begin to start anything


def test_a_state_folder_that_is_in_use_is_told(start: Callable[..., Running]):
    running = start()
    ended = ran(running.temporary, "gateway", "--port", "0")
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-2:]
    assert any(line.startswith("error: another gateway uses") for line in last)
    assert running.get("/readyz").status_code == 200


def test_an_address_that_others_can_reach_is_refused_with_advice(temporary: Path):
    ended = ran(temporary, "gateway", "--host", "0.0.0.0", "--port", "0")
    assert ended.returncode == 2
    assert "refusing to listen on 0.0.0.0" in ended.stderr
    assert "127.0.0.1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_misspelt_variable_is_refused_by_its_name(temporary: Path):
    ended = ran(temporary, "gateway", RELAESE="tiny")
    assert ended.returncode == 2
    assert "PROXY_GRM_RELAESE" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unknown_release_is_refused_with_the_known_ones(temporary: Path):
    ended = ran(temporary, "gateway", "--port", "0", RELEASE="tinny")
    assert ended.returncode == 2
    assert "no release 'tinny'" in ended.stderr
    assert "tiny" in ended.stderr.replace("tinny", "")
    assert "Traceback" not in ended.stderr
    assert list(temporary.iterdir()) == []


def test_check_config_prints_the_settings_with_secrets_hidden(temporary: Path):
    ended = ran(temporary, "check-config", REDIS_URL="redis://:hunter2@redis:6379/0", PORT="9001")
    assert ended.returncode == 0
    shown = json.loads(ended.stdout)
    assert shown["port"] == 9001
    assert shown["engine"] == "scripted"
    assert shown["redis_url"] == "**********"
    assert "hunter2" not in ended.stdout + ended.stderr
    assert list(temporary.iterdir()) == []
