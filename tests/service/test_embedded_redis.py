from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import redis
import redis.asyncio
import structlog
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from service.embedded_redis import EmbeddedRedis, EmbeddedRedisFailed, embedded_url

pytestmark = pytest.mark.anyio


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder with a name that is short enough for a socket."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def connected(url: str) -> redis.Redis:
    """A client that waits until the server listens."""
    return redis.Redis.from_url(url, retry=Retry(ConstantBackoff(0.01), retries=200))


def ended(process_id: int, within_s: float = 5.0) -> bool:
    """Whether a process that we may not be the parent of is gone, or soon is."""
    for _ in range(int(within_s / 0.02)):
        try:
            state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


async def test_it_listens_on_a_socket_alone_and_keeps_within_its_memory(
    temporary: Path, tmp_path: Path
):
    embedded = EmbeddedRedis(tmp_path / "state" / "deep")
    url = await embedded.start()
    try:
        assert url.startswith("unix://")
        with connected(url) as client:
            assert client.config_get("port") == {"port": "0"}
            assert client.config_get("maxmemory") == {"maxmemory": str(2**30)}
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] != "noeviction"
        socket = Path(url.removeprefix("unix://"))
        assert socket.stat().st_mode & 0o077 == 0
        assert socket.is_relative_to(temporary)
    finally:
        await embedded.stop()


async def test_it_answers_as_soon_as_it_has_started(temporary: Path, tmp_path: Path):
    for number in range(3):
        embedded = EmbeddedRedis(tmp_path / str(number))
        url = await embedded.start()
        try:
            with redis.Redis.from_url(url, retry=Retry(NoBackoff(), retries=0)) as client:
                assert client.ping()
        finally:
            await embedded.stop()


async def test_it_keeps_what_it_knows_over_a_restart(temporary: Path, tmp_path: Path):
    for known in (None, b"kept"):
        embedded = EmbeddedRedis(tmp_path / "state")
        with connected(await embedded.start()) as client:
            assert client.get("name") == known
            client.set("name", "kept")
        await embedded.stop()


async def test_it_stops_and_leaves_nothing_behind(temporary: Path, tmp_path: Path):
    embedded = EmbeddedRedis(tmp_path / "state")
    with connected(await embedded.start()) as client:
        process_id = client.info()["process_id"]
    await embedded.stop()
    assert ended(process_id, 0.1)
    assert list(temporary.iterdir()) == []


async def test_stopping_one_that_died_or_never_started_is_no_error(temporary: Path, tmp_path: Path):
    await EmbeddedRedis(tmp_path / "never").stop()
    embedded = EmbeddedRedis(tmp_path / "died")
    with connected(await embedded.start()) as client:
        os.kill(client.info()["process_id"], signal.SIGKILL)
    await embedded.stop()
    assert list(temporary.iterdir()) == []


async def test_a_folder_that_cannot_be_used_is_told_with_where_its_log_is(
    temporary: Path, tmp_path: Path
):
    state = tmp_path / "state"
    state.mkdir()
    (state / "appendonly.aof").mkdir()  # a folder where Redis wants a file
    embedded = EmbeddedRedis(state)
    with pytest.raises(EmbeddedRedisFailed, match=r"redis\.log"):
        await embedded.start()
    await embedded.stop()
    assert list(temporary.iterdir()) == []


async def test_one_that_was_killed_comes_back_at_the_same_address_with_what_it_knew(
    temporary: Path, tmp_path: Path
):
    embedded = EmbeddedRedis(tmp_path / "state")
    url = await embedded.start()
    with connected(url) as client:
        client.set("name", "kept")
        os.kill(client.info()["process_id"], signal.SIGKILL)
    async with redis.asyncio.Redis.from_url(url, retry=None) as again:
        while True:
            await asyncio.sleep(0.05)
            with contextlib.suppress(redis.RedisError):
                assert await again.get("name") == b"kept"
                break
    await embedded.stop()
    assert list(temporary.iterdir()) == []


async def test_one_that_could_not_be_started_again_is_tried_until_it_can(
    temporary: Path, tmp_path: Path, no_more_files, until
):
    embedded = EmbeddedRedis(tmp_path / "state")
    url = await embedded.start()
    with connected(url) as client:
        client.set("name", "kept")
        process_id = client.info()["process_id"]
    with structlog.testing.capture_logs() as logged, no_more_files():
        os.kill(process_id, signal.SIGKILL)
        await until(lambda: "could not be started" in str(logged), 60)
    with connected(url) as client:
        assert await asyncio.to_thread(client.get, "name") == b"kept"
    await embedded.stop()


async def test_its_address_is_known_without_it(temporary: Path, tmp_path: Path):
    expected = embedded_url(tmp_path / "state")
    embedded = EmbeddedRedis(tmp_path / "state")
    assert await embedded.start() == expected
    assert embedded_url(tmp_path / "other") != expected
    await embedded.stop()


async def test_a_socket_that_another_could_have_laid_is_refused(temporary: Path, tmp_path: Path):
    folder = Path(embedded_url(tmp_path / "state").removeprefix("unix://")).parent
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    embedded = EmbeddedRedis(tmp_path / "state")
    with pytest.raises(EmbeddedRedisFailed, match="alone"):
        await embedded.start()
    await embedded.stop()


_STARTS_ONE_AND_STAYS = """
import asyncio, pathlib, sys, time
from service.embedded_redis import EmbeddedRedis
embedded = EmbeddedRedis(pathlib.Path(sys.argv[1]))
print(asyncio.run(embedded.start()), flush=True)
time.sleep(60)
"""


def test_it_does_not_outlive_a_parent_that_was_killed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    temporary = str(tmp_path_factory.mktemp("k"))
    with subprocess.Popen(
        [sys.executable, "-c", _STARTS_ONE_AND_STAYS, str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        env={"TMPDIR": temporary, "PATH": os.defpath},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        with connected(parent.stdout.readline().strip()) as client:
            process_id = client.info()["process_id"]
        parent.kill()
    assert ended(process_id)
