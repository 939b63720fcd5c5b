"""What people read is what there is."""

from __future__ import annotations

import importlib.util
import re

import yaml

from .conftest import CHART, EXAMPLES, ROOT, example, render


def test_the_readme_is_made_of_these_values() -> None:
    found = importlib.util.spec_from_file_location("readme", ROOT / "k8s" / "readme.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert (CHART / "README.md").read_text() == module.readme(), "run python k8s/readme.py"


def test_every_value_is_in_the_readme_and_in_the_schema() -> None:
    text = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in values:
        assert f"`{name}`" in text or f"`{name}." in text, name
    assert len(re.findall(r"^\| `", text, re.M)) > 100


def test_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (CHART / "README.md").read_text()):
        assert (CHART / link).exists(), link


def test_examples_say_what_they_are_for() -> None:
    for name, path in EXAMPLES.items():
        assert path.read_text().startswith("# "), name


def test_the_notes_say_how_to_make_the_secret_that_pods_wait_for() -> None:
    bundled, external = render({}).notes, example("external-redis").notes
    for key in ("--from-file=keys.toml=keys.toml", "worker-key=", "engine-key=", "redis-password="):
        assert key in bundled
    assert "generic judging-secrets" in external
    assert 'url="rediss://' in external
    assert "/0?ssl_ca_certs=/etc/proxy-grm/redis-ca/ca.crt" in external
    assert "ssl_ca_certs" not in bundled
    assert "redis-password" not in external


def test_the_notes_tell_of_what_would_not_work() -> None:
    assert "demonstration" in render({}).notes
    assert "demonstration" not in example("gpu").notes
    values = {"settings": {"image_hosts": ["a.example"], "job_sources": ["s3://b/"]}}
    said = render(values).notes
    assert "networkPolicy.images" in said
    assert "networkPolicy.workerEgress" in said
    router = {"external": {"judge": ["http://vllm:8000"]}}
    assert "networkPolicy.gatewayEgress" in render({"engines": router}).notes
    assert "NOTE" not in example("external-engines").notes.replace("NOTE: the release", "")
    outside = {"gateway": {"service": {"type": "LoadBalancer"}}}
    assert "networkPolicy.clients" in render(outside).notes
    clients = {"networkPolicy": {"clients": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}}
    assert "networkPolicy.clients" not in render(outside | clients).notes
    assert "suspend: true" in example("training").notes
    assert "monitoring.podMonitors" in render({"autoscaling": {"kind": "keda"}}).notes
