"""The chart, rendered by Helm's own code for every example that ships."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "k8s" / "proxy-grm"
EXAMPLES = {path.stem: path for path in sorted((ROOT / "k8s" / "examples").glob("*.yaml"))}
RELEASE, NAMESPACE = "grm", "judging"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as some object makes it."""

    owner: Manifest
    spec: dict[str, Any]
    labels: dict[str, str]

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.containers if one["name"] == name]
        return found


@dataclass(frozen=True)
class Rendered:
    """Everything that an installation would send to Kubernetes."""

    values: dict[str, Any]
    manifests: tuple[Manifest, ...]
    notes: str

    def of(self, *kinds: str) -> list[Manifest]:
        return [one for one in self.manifests if one["kind"] in kinds]

    def names(self, *kinds: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.of(*kinds)}

    def one(self, kind: str, name: str) -> Manifest:
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    @property
    def pods(self) -> Iterator[Pod]:
        for owner in self.manifests:
            template = owner.get("spec", {}).get("template")
            if isinstance(template, dict):
                yield Pod(owner, template["spec"], template["metadata"]["labels"])

    def pod(self, component: str) -> Pod:
        (found,) = [pod for pod in self.pods if pod.component == component]
        return found


@functools.cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def render(values: dict[str, Any]) -> Rendered:
    """Raises `helm_python.HelmError` for values that the schema or a template refuses."""
    files = _chart().render(values, name=RELEASE, namespace=NAMESPACE)
    notes = "".join(text for name, text in files.items() if name.endswith("NOTES.txt"))
    manifests = [
        manifest
        for name, text in files.items()
        if name.endswith(".yaml")
        for manifest in yaml.load_all(text, yaml.CSafeLoader)
        if manifest
    ]
    return Rendered(_chart().merge_values(values), tuple(manifests), notes)


@functools.cache
def example(name: str) -> Rendered:
    return render(yaml.safe_load(EXAMPLES[name].read_text()))


@pytest.fixture(params=EXAMPLES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Each example in turn."""
    return example(request.param)
