"""Values that make no sense are refused before anything is installed."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from .conftest import render


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replicas": 0}}, "replicas"),
        ({"gateway": {"replicas": "two"}}, "replicas"),
        ({"gateway": {"resources": {"limits": {"memory": None}}}}, "memory"),
        ({"images": {"gateway": {"tag": "latest"}}}, "tag"),
        ({"images": {"engine": {"digest": "sha256:abc"}}}, "digest"),
        ({"podSecurity": {"runAsUser": 0}}, "runAsUser"),
        ({"secrets": {"name": ""}}, "name"),
        ({"settings": {"redis_url": "redis://:password@host"}}, "settings/redis_url"),
        ({"settings": {"vllm": {"memory_share": 0.5}}}, "settings/vllm"),
        ({"settings": {"release": "mine"}}, "settings/release"),
        ({"engines": {"judge": {"args": {"tensor_parallel_size": 4}}}}, "tensorParallel"),
        ({"engines": {"judge": {"tensorParallel": 0}}}, "tensorParallel"),
        ({"engines": {"judge": {"accelerator": "tpu"}}}, "accelerator"),
        ({"engines": {"judge": {"enabled": False}}}, "engines"),
        ({"engines": {"external": {"judge": ["vllm:8000"]}}}, "external"),
        ({"release": {"name": "../../etc"}}, "name"),
        ({"release": {"download": {"repository": "a/b"}}}, "release.volume.enabled"),
        ({"redis": {"bundled": {"maxMemory": "lots"}}}, "maxMemory"),
        ({"redis": {"external": {"cidrs": ["10.0.0.1"]}}}, "cidrs"),
        ({"redis": {"bundled": {"enabled": False}}}, "redis.external.cidrs"),
        ({"gateway": {"ingress": {"enabled": True}}}, "gateway.ingress.host"),
        ({"gateway": {"ingress": {"enabled": True, "host": "a.example"}}}, "tlsSecret"),
        ({"autoscaling": {"kind": "vpa"}}, "kind"),
        ({"autoscaling": {"kind": "hpa", "worker": {"minReplicas": 99}}}, "autoscaling.worker"),
        ({"networkPolicy": {"monitoring": []}}, "monitoring"),
        ({"training": {"jobs": [{"name": "sft"}]}}, "recipe"),
        ({"training": {"jobs": [{"name": "sft", "recipe": "paper-sft-judge"}]}}, "claim"),
        ({"training": {"jobs": [{"name": "S", "recipe": "r", "claim": "c"}]}}, "name"),
    ],
)
def test_nonsense_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(helm_python.HelmError, match=said):
        render(values)


def test_engines_of_others_take_the_place_of_ours() -> None:
    urls = ["http://router.vllm:8000"]
    rendered = render({"engines": {"judge": {"enabled": False}, "external": {"judge": urls}}})
    assert not [pod for pod in rendered.pods if pod.component.startswith("engine")]
    gateway = rendered.pod("gateway").container("gateway")
    (found,) = [one["value"] for one in gateway["env"] if one["name"] == "PROXY_GRM_ENGINE_URLS"]
    assert found == "judge=http://router.vllm:8000"


def test_an_external_redis_leaves_the_bundled_one_out() -> None:
    external = {"cidrs": ["10.0.0.0/8"]}
    rendered = render({"redis": {"bundled": {"enabled": False}, "external": external}})
    assert "grm-redis" not in rendered.names("StatefulSet", "Service")


def test_a_mirror_stands_before_every_image() -> None:
    rendered = render({"images": {"registry": "mirror.example/hub/"}})
    images = {one["image"] for pod in rendered.pods for one in pod.containers}
    assert images == {
        "mirror.example/hub/proxy-grm/gateway:0.1.0",
        "mirror.example/hub/proxy-grm/engine:0.1.0",
        "mirror.example/hub/redis:7.2.11-alpine",
    }


def test_a_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "a" * 64
    rendered = render({"images": {"gateway": {"tag": "1.2.3", "digest": digest}}})
    image = rendered.pod("gateway").container("gateway")["image"]
    assert image == f"proxy-grm/gateway@{digest}"


def test_another_download_is_another_job() -> None:
    def job(revision: str) -> str:
        download = {"repository": "acme/judge", "revision": revision}
        release = {"name": "judge", "volume": {"enabled": True}, "download": download}
        (name,) = render({"release": release}).names("Job")
        return name

    assert job("v1") == job("v1") != job("v2")
