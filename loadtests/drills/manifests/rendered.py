"""The chart as Helm renders it, and the pods that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import yaml

from loadtests.drills.site import ROOT

CHART = ROOT / "k8s" / "proxy-grm"
ADAPTER = ROOT / "k8s" / "prometheus-adapter.yaml"
VALUES = Path(__file__).with_name("values.yaml")
RELEASE, NAMESPACE = "grm", "judging"

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """A pod as a Deployment or StatefulSet makes it; the chart's pods have one container each.

    Attributes:
        component: what it is: gateway, worker, engine-judge, redis.
        owner: the object that makes it.
        replicas: how many there are before anything is scaled.
    """

    component: str
    owner: Manifest
    replicas: int

    @property
    def name(self) -> str:
        """Of the owner, with which pods' names begin."""
        return self.owner["metadata"]["name"]

    @property
    def keeps_names(self) -> bool:
        """Whether a pod that is replaced has its name, address and volumes again."""
        return self.owner["kind"] == "StatefulSet"

    @property
    def spec(self) -> dict[str, Any]:
        """Of the pod."""
        return self.owner["spec"]["template"]["spec"]

    @property
    def container(self) -> dict[str, Any]:
        """The one that it is about."""
        return self.spec["containers"][0]

    @property
    def labels(self) -> dict[str, str]:
        """Of the pod."""
        return self.owner["spec"]["template"]["metadata"]["labels"]

    def port(self, name: str | int) -> int:
        """A port of the container by its name, or as it is."""
        if isinstance(name, int):
            return name
        (found,) = [one["containerPort"] for one in self.container["ports"] if one["name"] == name]
        return found


@dataclass(frozen=True, slots=True)
class Rendered:
    """Everything that an installation would send to Kubernetes."""

    manifests: tuple[Manifest, ...]

    def of(self, kind: str) -> list[Manifest]:
        """All of a kind."""
        return [one for one in self.manifests if one["kind"] == kind]

    def one(self, kind: str, name: str) -> Manifest:
        """The one of that name."""
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    @property
    def templates(self) -> Iterator[Template]:
        """Pods that run until they are stopped."""
        least = {
            scaler["spec"]["scaleTargetRef"]["name"]: scaler["spec"]["minReplicaCount"]
            for scaler in self.of("ScaledObject")
        }
        for owner in (*self.of("Deployment"), *self.of("StatefulSet")):
            labels = owner["spec"]["template"]["metadata"]["labels"]
            replicas = owner["spec"].get("replicas", least.get(owner["metadata"]["name"], 1))
            yield Template(labels["app.kubernetes.io/component"], owner, replicas)

    def template(self, component: str) -> Template:
        """The one of a component."""
        (found,) = [one for one in self.templates if one.component == component]
        return found


def rendered(values: dict[str, Any] | None = None) -> Rendered:
    """The chart with these values; absent, those beside this module."""
    if values is None:
        values = yaml.safe_load(VALUES.read_text())
    files = helm_python.Chart.load(CHART).render(values, name=RELEASE, namespace=NAMESPACE)
    texts = (text for name, text in files.items() if name.endswith(".yaml"))
    manifests = (one for text in texts for one in yaml.safe_load_all(text) if one)
    return Rendered(tuple(manifests))
