"""Scalers, budgets and spreading point at what is there."""

from __future__ import annotations

import re

import pytest

from .conftest import Rendered, example, render


def test_scalers_and_budgets_name_objects_that_exist(rendered: Rendered) -> None:
    for scaler in rendered.of("ScaledObject", "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert target["name"] in rendered.names(target["kind"])
    for budget in rendered.of("PodDisruptionBudget"):
        wanted = budget["spec"]["selector"]["matchLabels"]
        assert len([pod for pod in rendered.pods if wanted.items() <= pod.labels.items()]) == 1


@pytest.mark.parametrize("kind", ["ScaledObject", "HorizontalPodAutoscaler"])
def test_gateways_workers_and_engines_are_scaled(kind: str) -> None:
    rendered = example("keda" if kind == "ScaledObject" else "hpa")
    assert rendered.names(kind) == {"grm-gateway", "grm-worker", "grm-engine-judge"}


def test_without_a_scaler_replicas_are_those_of_the_values() -> None:
    rendered = example("gpu")
    assert rendered.of("ScaledObject", "HorizontalPodAutoscaler") == []
    assert rendered.one("Deployment", "grm-gateway")["spec"]["replicas"] == 3
    assert rendered.one("StatefulSet", "grm-engine-judge")["spec"]["replicas"] == 4


def test_gateways_know_every_engine_that_a_scaler_may_add() -> None:
    rendered = example("keda")
    (scaler,) = [one for one in rendered.of("ScaledObject") if "engine" in one["metadata"]["name"]]
    gateway = rendered.pod("gateway").container("gateway")
    (urls,) = [one["value"] for one in gateway["env"] if one["name"] == "PROXY_GRM_ENGINE_URLS"]
    numbers = [int(found) for found in re.findall(r"engine-judge-(\d+)\.", urls)]
    assert numbers == list(range(scaler["spec"]["maxReplicaCount"])) == list(range(16))


def test_gateways_and_engines_are_spread_over_zones_and_nodes(rendered: Rendered) -> None:
    for pod in rendered.pods:
        if pod.component in ("gateway", "engine-judge", "engine-proxy"):
            spread = pod.spec["topologySpreadConstraints"]
            keys = [one["topologyKey"] for one in spread]
            assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
            for one in spread:
                assert one["labelSelector"]["matchLabels"].items() <= pod.labels.items()


def test_what_is_watched_is_there(rendered: Rendered) -> None:
    for monitor in rendered.of("PodMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (pod,) = [pod for pod in rendered.pods if wanted.items() <= pod.labels.items()]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        names = {port["name"] for one in pod.spec["containers"] for port in one["ports"]}
        assert endpoint["port"] in names
        assert endpoint["path"] == "/metrics"


def test_monitors_carry_the_labels_by_which_prometheus_chooses() -> None:
    for manifest in example("keda").of("PodMonitor", "PrometheusRule"):
        assert manifest["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_the_ingress_leads_to_the_gateway_over_tls() -> None:
    rendered = example("ingress")
    (ingress,) = rendered.of("Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = path["backend"]["service"]
    ports = [port["name"] for port in rendered.one("Service", service["name"])["spec"]["ports"]]
    assert service["port"]["name"] in ports
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "judge-tls"}]
    assert render({}).of("Ingress") == []
