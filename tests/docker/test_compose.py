"""The compose file: pinned, hardened, and made of files, targets and settings that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.keys import Keyring
from service.settings import Settings, unknown_variables

from .conftest import DOCKER, ROOT, Stage

OURS = ("gateway", "worker", "engine-cpu", "engine-gpu")
MADE_LATER = {"./secrets/keys.toml", "./releases"}


def test_images_are_pinned_or_built_here(compose: dict[str, Any], stages: dict[str, Stage]) -> None:
    built = {one["image"] for one in compose["services"].values() if "build" in one}
    for name, service in compose["services"].items():
        _, _, tag = service["image"].partition(":")
        assert tag, name
        assert tag != "latest", name
        if service["image"].startswith("proxy-grm/"):
            assert service["image"] in built
        if "build" in service:
            build = service["build"]
            assert (DOCKER / build["context"] / build["dockerfile"]).resolve().is_file()
            assert build["target"] in stages


def test_the_images_of_others_are_those_of_the_chart(compose: dict[str, Any]) -> None:
    values = (ROOT / "k8s" / "proxy-grm" / "values.yaml").read_text()
    _, _, tag = compose["services"]["redis"]["image"].partition(":")
    assert f"redis: {{ repository: redis, tag: {tag}," in values


def test_every_service_gives_up_what_it_does_not_need(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"


def test_mounted_files_exist(compose: dict[str, Any]) -> None:
    mounted = 0
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            if source.startswith((".", "/")):
                assert source in MADE_LATER or (DOCKER / source).exists(), source
                mounted += 1
            else:
                assert source in compose["volumes"]
    assert mounted >= 6


def test_what_services_wait_for_exists_and_tells_its_health(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name in service.get("depends_on", {}):
            assert name in compose["services"]
    profiles = {name: one.get("profiles") for name, one in compose["services"].items()}
    assert profiles["engine-cpu"] == ["cpu"]
    assert profiles["engine-gpu"] == ["gpu"]
    assert {tuple(found) for found in profiles.values() if found} == {("cpu",), ("gpu",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `docker/secrets.sh` makes."""
    made = tmp_path_factory.mktemp("secrets")
    key = f"{sys.executable} -m service new-key"
    environment = os.environ | {"NEW_KEY": key, "PYTHONPATH": str(ROOT)}
    script = [DOCKER / "secrets.sh", made]
    subprocess.run(script, env=environment, check=True, capture_output=True)
    return made


@pytest.fixture
def made(folder: Path) -> dict[str, str]:
    """The variables in it."""
    lines = (folder / "compose.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("name", OURS)
def test_variables_are_settings(
    name: str, compose: dict[str, Any], made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, written in (made | compose["services"][name]["environment"]).items():
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", written))
    assert unknown_variables() == []
    settings = Settings()
    if name == "gateway":
        assert settings.engine_urls == {"judge": ("http://engine:8000",)}
        assert settings.redis_url is not None
    if name == "engine-gpu":
        assert settings.vllm.args == {"tensor_parallel_size": 1}


def test_the_keys_fit_each_other(made: dict[str, str], folder: Path) -> None:
    ring = Keyring(folder / "keys.toml")
    worker = ring.holder(made["PROXY_GRM_WORKER__API_KEY"])
    client = ring.holder((folder / "client-key").read_text().strip())
    assert worker is not None
    assert worker.role == "admin"
    assert client is not None
    assert client.role == "score"
    assert made["REDIS_PASSWORD"] in made["PROXY_GRM_REDIS_URL"]
    assert len(made["PROXY_GRM_ENGINE_API_KEY"]) == 48


def test_keys_are_not_made_twice(folder: Path) -> None:
    done = subprocess.run(
        [DOCKER / "secrets.sh", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is there already" in done.stderr


def test_the_gateway_listens_where_compose_and_prometheus_look(compose: dict[str, Any]) -> None:
    environment = compose["services"]["gateway"]["environment"]
    port = compose["services"]["gateway"]["ports"][0].rpartition(":")[2]
    assert port == environment["PROXY_GRM_PORT"]
    prometheus = (DOCKER / "prometheus.yaml").read_text()
    assert f"port: {environment['PROXY_GRM_METRICS_PORT']}" in prometheus
    assert json.loads(compose["services"]["engine-cpu"]["environment"]["PROXY_GRM_PORT"]) == 8000


def test_prometheus_takes_its_configuration(
    compose: dict[str, Any], of_prometheus: Callable[[str], str], tmp_path: Path
) -> None:
    for volume in compose["services"]["prometheus"]["volumes"]:
        source, _, inside = volume.partition(":")
        if source.startswith("."):
            shutil.copy(DOCKER / source, tmp_path / Path(inside.removesuffix(":ro")).name)
    done = subprocess.run(
        [of_prometheus("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 rule files found" in done.stdout
