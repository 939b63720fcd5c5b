"""What the images start, started here."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Stage, command_of

OURS = ("gateway", "worker", "engine-cpu", "engine-gpu")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@functools.cache
def helped(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return run([*command, "--help"], Path(tempfile.gettempdir()))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """As the image would: anywhere but in the repository."""
    assert command[0] == "python"
    return subprocess.run(
        [sys.executable, *command[1:]],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", ["gateway", "engine", "all-in-one"])
def test_the_command_of_an_image_is_understood(stages: dict[str, Stage], target: str) -> None:
    done = helped(tuple(command_of(stages, target)))
    assert done.returncode == 0, done.stderr
    assert "usage: python -m service" in done.stdout


def test_the_training_image_lists_its_recipes(stages: dict[str, Stage], tmp_path: Path) -> None:
    done = run(command_of(stages, "training"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "paper-grpo" in done.stdout


def test_commands_of_the_compose_file_are_understood(compose: dict[str, Any]) -> None:
    commands = {tuple(compose["services"][name]["command"]) for name in OURS}
    for command in commands:
        done = helped(command)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["gateway", "engine", "all-in-one"])
def test_a_healthcheck_fails_where_nobody_answers(
    stages: dict[str, Stage], target: str, tmp_path: Path
) -> None:
    (written,) = [line.partition("CMD ")[2] for line in stages[target].of("HEALTHCHECK")]
    check: list[str] = json.loads(written)
    unused = [part.replace(":8000/", ":1/") for part in check]
    assert unused != check
    done = run(unused, tmp_path)
    assert done.returncode != 0
    assert "refused" in done.stderr


WITHOUT_AN_ENGINE = """
import asyncio, importlib.metadata, sys

with open(sys.argv[1]) as pins:
    there = {line.partition("==")[0].lower().replace("_", "-") for line in pins}
there |= {"proxy-grm", "setuptools", "pip"}
owners = importlib.metadata.packages_distributions()
asked = set()

class NotInTheImage:
    def find_spec(self, name, path=None, target=None):
        found = {one.lower().replace("_", "-") for one in owners.get(name.partition(".")[0], ())}
        if found and not found & there:
            asked.add(name.partition(".")[0])
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

sys.meta_path.insert(0, NotInTheImage())

from service.app import create_app
from service.settings import Settings

async def start() -> None:
    settings = Settings(
        engine="remote",
        engine_urls={"judge": ("http://127.0.0.1:1",)},
        redis_url="redis://127.0.0.1:1/0",
        job_sources=("file:///tmp",),
        dialects=("openrlhf", "proxy_grm", "r1_reward"),
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        assert app.state.gateway.engine.state != "ready"

if __name__ == "__main__":
    import service.gateway_process, service.jobs.sources, service.worker
    import fsspec, huggingface_hub, pyarrow.parquet

    asyncio.run(start())
    print("started without", *sorted(asked))
"""


def test_a_gateway_with_remote_engines_needs_what_its_image_has_and_no_more(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(WITHOUT_AN_ENGINE)
    pins = ROOT / "requirements" / "gateway.txt"
    done = run(["python", str(program), str(pins)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "started without" in done.stdout.splitlines()[-1]
