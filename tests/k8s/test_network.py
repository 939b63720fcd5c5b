"""Who may reach whom, as the policies add up."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from .conftest import Manifest, Pod, Rendered, example, render


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert not selector.keys() - {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def policies(rendered: Rendered, pod: Pod, direction: str) -> list[Manifest]:
    return [
        policy
        for policy in rendered.of("NetworkPolicy")
        if direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], pod.labels)
    ]


def allowed(rules: list[dict[str, Any]], side: str, peer: Pod, port: int) -> bool:
    for rule in rules:
        ports = [one["port"] for one in rule.get("ports", [])]
        peers = rule.get(side)
        by_label = [one["podSelector"] for one in peers or [] if "podSelector" in one]
        if (not ports or port in ports) and (
            peers is None or any(matches(one, peer.labels) for one in by_label)
        ):
            return True
    return False


def reaches(rendered: Rendered, source: Pod, target: Pod, port: int) -> bool:
    """Whether both sides let a connection through."""
    out = [rule for one in policies(rendered, source, "Egress") for rule in rules(one, "egress")]
    into = [rule for one in policies(rendered, target, "Ingress") for rule in rules(one, "ingress")]
    return allowed(out, "to", target, port) and allowed(into, "from", source, port)


def rules(policy: Manifest, side: str) -> list[dict[str, Any]]:
    return policy["spec"].get(side) or []


def test_every_pod_is_denied_by_default(rendered: Rendered) -> None:
    for pod in rendered.pods:
        for direction in ("Ingress", "Egress"):
            names = [one["metadata"]["name"] for one in policies(rendered, pod, direction)]
            assert "grm-deny" in names, pod.component


def test_those_who_work_together_reach_each_other_and_nobody_else_does() -> None:
    rendered = example("tensor-parallel")
    port = {"gateway": 8000, "engine-judge": 8000, "engine-proxy": 8000, "redis": 6379}
    pods = {pod.component: pod for pod in rendered.pods}
    found = {
        (source, target)
        for source in pods
        for target, listens in port.items()
        if source != target and reaches(rendered, pods[source], pods[target], listens)
    }
    assert found == {
        ("gateway", "engine-judge"),
        ("gateway", "engine-proxy"),
        ("gateway", "redis"),
        ("worker", "gateway"),
        ("worker", "redis"),
    }


def test_an_engine_has_nowhere_to_go(rendered: Rendered) -> None:
    for pod in (pod for pod in rendered.pods if pod.component.startswith("engine-")):
        assert [
            rule for one in policies(rendered, pod, "Egress") for rule in rules(one, "egress")
        ] == []


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "10.1.2.3", "172.20.0.1", "192.168.1.1", "127.0.0.1", "100.100.100.200"],
)
def test_a_gateway_that_fetches_pictures_reaches_nothing_private(address: str) -> None:
    rendered = example("ingress")
    gateway = rendered.pod("gateway")
    blocks = [
        peer["ipBlock"]
        for policy in policies(rendered, gateway, "Egress")
        for rule in rules(policy, "egress")
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    assert [reached(blocks, one) for one in ("93.184.216.34", "2606:2800:220:1::1")] == [True, True]
    assert not reached(blocks, address)
    for private in ("fd00::1", "fe80::a9fe:a9fe", "::1", "::ffff:10.0.0.1", "fd00:ec2::254"):
        assert not reached(blocks, private)


def reached(blocks: list[dict[str, Any]], address: str) -> bool:
    wanted = ipaddress.ip_address(address)
    return any(
        wanted in ipaddress.ip_network(block["cidr"])
        and not any(wanted in ipaddress.ip_network(one) for one in block.get("except", []))
        for block in blocks
        if ipaddress.ip_network(block["cidr"]).version == wanted.version
    )


def test_pictures_by_url_are_off_by_default() -> None:
    gateway = policies(render({}), render({}).pod("gateway"), "Egress")
    peers = [
        peer for one in gateway for rule in rules(one, "egress") for peer in rule.get("to", [])
    ]
    assert not [peer for peer in peers if "ipBlock" in peer]


def test_policies_can_be_left_to_somebody_else() -> None:
    assert render({"networkPolicy": {"enabled": False}}).of("NetworkPolicy") == []
