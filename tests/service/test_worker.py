"""Gateway and workers as processes, and what becomes of a job when they are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadtests.drills.site import free_port
from service.keys import new_key

from .test_gateway_process import alive, answers, command, environment, eventually

LONG_S = 600.0  # until something has happened that takes as long as the machine needs


@dataclass
class Site:
    """Processes that share a state folder."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict[str, str])
    headers: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gateway(self, *options: str) -> subprocess.Popen[bytes]:
        process = self._start("gateway", "--port", str(self.port), *options)
        assert eventually(lambda: answers(self.url), LONG_S), self.said()
        return process

    def worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        settings = {"WORKER__GATEWAY_URL": self.url, "JOBS__LEASE_S": "1"} | self.settings
        with (self.folder / "said").open("ab") as errors:
            process = subprocess.Popen(
                command(*arguments), env=environment(self.folder, **settings), stderr=errors
            )
        self.processes.append(process)
        return process

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def failed(self) -> bool:
        return "Traceback" in self.said()

    def send(self, count: int) -> str:
        lines = [
            json.dumps({"id": f"n{n}", "question": f"question {n}", "responses": ["One.", "Two."]})
            for n in range(1, count + 1)
        ]
        answer = httpx.post(
            f"{self.url}/jobs",
            content="\n".join(lines),
            headers={"content-type": "application/x-ndjson"} | self.headers,
            timeout=60,
        )
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def status(self, job: str) -> dict[str, Any]:
        return httpx.get(f"{self.url}/jobs/{job}", headers=self.headers, timeout=60).json()

    def has_done(self, job: str, count: int) -> bool:
        return eventually(lambda: self.status(job)["counts"]["ok"] >= count, LONG_S)

    def results(self, job: str) -> list[dict[str, Any]]:
        url = f"{self.url}/jobs/{job}/results"
        answer = httpx.get(url, headers=self.headers, timeout=LONG_S)
        return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("w"), free_port())
    yield made
    for process in made.processes:
        process.kill()
        process.wait(30)


def test_a_job_survives_the_death_of_a_worker_the_store_and_the_gateway(site: Site):
    gateway = site.gateway()
    first, _ = site.worker(), site.worker()
    job = site.send(400)
    assert site.has_done(job, 30)
    first.kill()
    site.worker()
    assert site.has_done(job, 120)
    [store] = [child for child in psutil.Process(gateway.pid).children() if "redis" in child.name()]
    store.kill()
    assert eventually(lambda: "starting it again" in site.said(), LONG_S)
    assert eventually(lambda: "counts" in site.status(job), LONG_S)
    assert site.has_done(job, 200)
    gateway.kill()
    gateway.wait()
    site.gateway()
    results = site.results(job)
    assert site.status(job)["counts"] == {"total": 400, "ok": 400, "abstain": 0, "error": 0}
    assert [result["line"] for result in results] == list(range(1, 401))
    assert [result["id"] for result in results] == [f"n{n}" for n in range(1, 401)]
    assert {result["status"] for result in results} == {"ok"}
    assert not site.failed()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stops_when_it_is_told(site: Site, sent: signal.Signals):
    site.gateway()
    worker = site.worker()
    job = site.send(5)
    assert site.has_done(job, 5)
    worker.send_signal(sent)
    assert worker.wait(60) == 0
    assert "worker stopped" in site.said()


def test_a_worker_may_come_before_its_gateway(site: Site):
    worker = site.worker()
    assert eventually(lambda: "no work found" in site.said(), LONG_S)
    site.gateway()
    job = site.send(5)
    assert site.has_done(job, 5)
    assert worker.poll() is None


def test_workers_beside_a_gateway_start_and_stop_with_it_and_are_replaced(site: Site):
    def workers() -> list[psutil.Process]:
        children = psutil.Process(gateway.pid).children()
        return [child for child in children if alive(child) and child.cmdline()[-1:] == ["worker"]]

    gateway = site.gateway("--workers", "2")
    assert eventually(lambda: len(workers()) == 2, LONG_S)
    job = site.send(20)
    assert site.has_done(job, 20)
    killed, other = workers()
    os.kill(killed.pid, signal.SIGKILL)
    assert eventually(lambda: len(workers()) == 2 and killed not in workers(), LONG_S)
    job = site.send(20)
    assert site.has_done(job, 20)
    running = [other, *workers()]
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(60) == 0
    assert not any(alive(worker) for worker in running)
    assert not site.failed()


def test_workers_beside_a_gateway_with_keys_are_let_in(site: Site):
    keys = site.folder / "keys.toml"
    secret = new_key(keys, "team", None, "score", None)
    site.settings["API_KEYS_FILE"] = str(keys)
    site.headers["authorization"] = f"Bearer {secret}"
    site.gateway("--workers", "1")
    job = site.send(5)
    assert site.has_done(job, 5)
    assert secret not in site.said()
    assert not site.failed()


def test_workers_beside_a_gateway_that_is_killed_end_with_it(site: Site):
    gateway = site.gateway("--workers", "1")
    find: Callable[[], list[psutil.Process]] = lambda: psutil.Process(gateway.pid).children()  # noqa: E731
    assert eventually(lambda: any(c.cmdline()[-1:] == ["worker"] for c in find()), LONG_S)
    children = find()
    gateway.kill()
    gateway.wait()
    assert eventually(lambda: not any(alive(child) for child in children), LONG_S)
