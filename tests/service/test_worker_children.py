from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import structlog

from service.settings import Settings
from service.worker_children import Workers

from .test_gateway_process import alive

pytestmark = pytest.mark.anyio


async def test_a_worker_that_could_not_be_started_is_tried_until_it_can(
    tmp_path: Path, no_more_files, until
):
    def running() -> list[psutil.Process]:
        children = psutil.Process().children()
        return [child for child in children if alive(child) and child.cmdline()[-1:] == ["worker"]]

    settings = Settings(engine="scripted", workers=1, state_dir=tmp_path)
    workers = Workers(settings, "http://127.0.0.1:1", None)
    with structlog.testing.capture_logs() as logged, no_more_files():
        workers.start()
        await until(lambda: "could not be started" in str(logged))
    await until(running, 60)
    await workers.stop()
    assert running() == []
