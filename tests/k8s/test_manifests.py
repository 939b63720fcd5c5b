"""What is rendered is what Kubernetes takes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate.utils as kubernetes
import pytest
import yaml
from referencing import Registry, Resource

from .conftest import CHART, EXAMPLES, NAMESPACE, Manifest, Rendered, render

CRDS = Path(__file__).parent / "crds"
OLDEST, NEWEST = "1.30.0", kubernetes.latest_version()


@functools.cache
def definitions(folder: str) -> Registry[Any]:
    text = kubernetes.schema_contents(f"kubernetes-json-schema/{folder}/_definitions.json", folder)
    return Resource.from_contents(text) @ Registry()


@functools.cache
def strictly(version: str, kind: str, api_version: str) -> Any:
    """A validator that refuses unknown fields: by the schemas that `kubernetes-validate` has, or
    by those of custom resources beside this file."""
    custom = CRDS / f"{kind.lower()}.json"
    if custom.exists():
        return jsonschema.Draft202012Validator(json.loads(custom.read_text()))
    folder = f"v{version}-local-strict"
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], number) if part)
    schema = kubernetes.schema_contents(f"kubernetes-json-schema/{folder}/{name}.json", version)
    return jsonschema.Draft202012Validator(schema, registry=definitions(folder))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_manifest_is_valid_strictly(rendered: Rendered, version: str) -> None:
    assert len(rendered.manifests) > 5
    for manifest in rendered.manifests:
        strictly(version, manifest["kind"], manifest["apiVersion"]).validate(manifest)


@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_lints_without_a_word(name: str) -> None:
    values = yaml.safe_load(EXAMPLES[name].read_text())
    found = helm_python.lint(CHART, values, strict=True, namespace=NAMESPACE)
    said = [message["error"] for message in found["messages"]]
    assert found["errors"] == []
    assert said == ["icon is recommended"]


def test_a_misspelt_field_would_be_found() -> None:
    deployment = render({}).one("Deployment", "grm-gateway")
    spoilt: Manifest = deployment | {"spec": deployment["spec"] | {"replica": 3}}
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        strictly(NEWEST, "Deployment", "apps/v1").validate(spoilt)


def test_no_two_objects_share_a_name(rendered: Rendered) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in rendered.manifests]
    assert len(names) == len(set(names))


def test_every_object_says_whose_it_is(rendered: Rendered) -> None:
    for manifest in rendered.manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "grm", manifest["metadata"]["name"]
        assert labels["app.kubernetes.io/name"] == "proxy-grm"
