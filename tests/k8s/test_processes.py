"""What the manifests start is what the code has: commands, variables, settings, routes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from service.app import create_app
from service.metrics import Metrics
from service.settings import Settings, unknown_variables

from .conftest import Rendered, example, render

OURS = ("gateway", "worker", "engine")


def settings_of(
    rendered: Rendered, component: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The settings that a container would find, secrets being the word `secret`."""
    container = rendered.pod(component).container(name)
    found: dict[str, str] = {}
    for variable in container["env"]:
        value = "secret" if "valueFrom" in variable else variable["value"]
        if variable["name"] == "PROXY_GRM_REDIS_URL" and value == "secret":
            value = "rediss://user:secret@redis:6380/0"
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda m: found[m[1]], value)
    if "PROXY_GRM_CONFIG" in found:
        file = tmp_path / "settings.toml"
        written = rendered.one("ConfigMap", "grm-settings")["data"]["settings.toml"]
        file.write_text(written)
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts[str(Path(found["PROXY_GRM_CONFIG"]).parent)] == "settings"
        found["PROXY_GRM_CONFIG"] = str(file)
    for variable, value in found.items():
        monkeypatch.setenv(variable, value)
    assert unknown_variables() == []
    return Settings()


def test_every_variable_is_a_setting(
    rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    for pod in rendered.pods:
        for container in pod.spec["containers"]:
            if container["name"] in OURS:
                with monkeypatch.context() as patch:
                    settings_of(rendered, pod.component, container["name"], tmp_path, patch)
                    read += 1
    assert read >= 2


def test_every_process_understands_a_second_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = {"release": "/releases/next", "engine_urls": {"judge": ["http://next:8000"]}}
    rendered = render({"settings": {"rollout": second}})
    for component in ("gateway", "worker"):
        with monkeypatch.context() as patch:
            settings = settings_of(rendered, component, component, tmp_path, patch)
            assert settings.rollout.release == "/releases/next"


def test_a_gateway_knows_every_engine_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = example("tensor-parallel")
    settings = settings_of(rendered, "gateway", "gateway", tmp_path, monkeypatch)
    assert settings.engine == "remote"
    named = {
        role: [re.fullmatch(r"http://([\w-]+)\.([\w-]+)\.judging\.svc:8000", url) for url in urls]
        for role, urls in settings.engine_urls.items()
    }
    for role, found in named.items():
        engine = rendered.one("StatefulSet", f"grm-engine-{role}")
        pods = [f"grm-engine-{role}-{number}" for number in range(engine["spec"]["replicas"])]
        assert [match[1] for match in found if match] == pods
        assert {match[2] for match in found if match} == {engine["spec"]["serviceName"]}
        assert engine["spec"]["serviceName"] in rendered.names("Service")
    assert named.keys() == {"judge", "proxy"}


def test_settings_of_the_file_arrive_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {
        "admission": {"running": 256},
        "limits": {"batch_bytes": 2**33, "image_fetch_s": 2.5},
        "image_hosts": ["images.example"],
        "evaluators": {"big": {"kind": "openai", "options": {"model": "m"}}},
    }
    rendered = render({"settings": wanted})
    settings = settings_of(rendered, "gateway", "gateway", tmp_path, monkeypatch)
    assert settings.admission.running == 256
    assert settings.limits.batch_bytes == 2**33
    assert settings.limits.image_fetch_s == 2.5
    assert settings.image_hosts == ("images.example",)
    assert settings.evaluators["big"].options == {"model": "m"}
    assert not settings.on_loopback
    assert settings.api_keys_file == Path("/etc/proxy-grm/keys/keys.toml")


def test_new_settings_make_new_gateways_and_leave_engines_alone() -> None:
    before, after = render({}), render({"settings": {"log_level": "debug"}})
    for component, restarted in (("gateway", True), ("worker", True), ("engine-judge", False)):
        old, new = (one.pod(component).owner["spec"]["template"] for one in (before, after))
        assert (old != new) is restarted, component


def test_probes_ask_what_the_gateway_serves(rendered: Rendered) -> None:
    app = create_app(Settings(engine="scripted"), metrics=Metrics(CollectorRegistry()))
    routes = {getattr(route, "path", None) for route in app.routes}
    container = rendered.pod("gateway").container("gateway")
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    asked = [httpx.URL(probe["path"]) for probe in probes]
    assert {url.path for url in asked} <= routes
    assert [str(url) for url in asked] == ["/readyz", "/livez", "/readyz?exclude=engine"]


def test_engines_are_probed_as_gateways_look_at_them(rendered: Rendered) -> None:
    """By the one path that both vLLM's server has and `service.engines.remote_replica` asks."""
    for pod in (pod for pod in rendered.pods if pod.component.startswith("engine-")):
        probes = [value for key, value in pod.container("engine").items() if key.endswith("Probe")]
        assert [probe["httpGet"]["path"] for probe in probes] == ["/health"] * 3


def test_a_pod_asks_for_as_many_gpus_as_its_engine_uses() -> None:
    rendered = example("tensor-parallel")
    for role, tensor, data in (("judge", 4, 1), ("proxy", 1, 2)):
        container = rendered.pod(f"engine-{role}").container("engine")
        arguments = json.loads(value(container, "PROXY_GRM_VLLM__ARGS"))
        assert arguments["tensor_parallel_size"] == tensor
        assert arguments["data_parallel_size"] == data
        assert container["resources"]["limits"]["nvidia.com/gpu"] == str(tensor * data)


def test_an_engine_on_a_cpu_asks_for_no_gpu() -> None:
    container = example("minimal").pod("engine-judge").container("engine")
    assert container["resources"]["limits"].keys() == {"memory"}
    assert value(container, "PROXY_GRM_VLLM__KV_CACHE_GIB") == "1"


def test_workers_reach_the_gateways_through_their_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = render({"gateway": {"service": {"port": 8080}}})
    settings = settings_of(rendered, "worker", "worker", tmp_path, monkeypatch)
    service = rendered.one("Service", "grm-gateway")
    assert settings.worker.gateway_url == "http://grm-gateway:8080"
    assert [port["port"] for port in service["spec"]["ports"]] == [8080]
    assert settings.worker.api_key == SecretStr("secret")
    assert settings.redis_url == SecretStr("redis://:secret@grm-redis:6379/0")


def value(container: dict[str, Any], variable: str) -> str:
    (found,) = [one["value"] for one in container["env"] if one["name"] == variable]
    return found
