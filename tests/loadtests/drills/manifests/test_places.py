from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.drills.manifests.places import Places
from loadtests.drills.manifests.rendered import rendered

SECRETS = {"keys.toml": "digests", "engine-key": "e"}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path, rendered(), SECRETS, hosts={"grm-gateway:80": "127.0.0.1:5000"})


def test_a_service_is_where_it_was_put_and_no_other_port_of_it(places: Places):
    assert places.here("http://grm-gateway:80/x", "p", {}) == "http://127.0.0.1:5000/x"
    for other in ("http://grm-gateway:8080", "http://my-grm-gateway:80"):
        assert places.here(other, "p", {}) == other


def test_pods_behind_a_headless_service_are_at_their_own_addresses(places: Places):
    url = "http://grm-engine-judge-{}.grm-engine-judge.judging.svc:8000"
    text = ",".join(url.format(number) for number in (0, 1))
    first, second = (places.addresses.of(f"grm-engine-judge-{number}") for number in (0, 1))
    assert first != second
    assert places.here(text, "p", {}) == f"http://{first}:8000,http://{second}:8000"


def test_a_pod_listens_at_its_own_address(places: Places):
    assert places.here("0.0.0.0", "a", {}) == places.addresses.of("a")
    assert places.addresses.of("a") != places.addresses.of("b")


def test_variables_are_those_before(places: Places):
    assert places.here("redis://:$(PASSWORD)@r", "p", {"PASSWORD": "x"}) == "redis://:x@r"
    with pytest.raises(KeyError):
        places.here("$(UNKNOWN)", "p", {})


def test_volumes_hold_what_the_manifests_put_there(places: Places):
    template = places.rendered.template("gateway")
    folders = places.volumes(template, "grm-gateway-1")
    assert folders.keys() == {"/etc/proxy-grm/settings", "/etc/proxy-grm/keys", "/tmp"}
    settings = (folders["/etc/proxy-grm/settings"] / "settings.toml").read_text()
    assert "probe_share" in settings
    assert (folders["/etc/proxy-grm/keys"] / "keys.toml").read_text() == "digests"
    other = places.volumes(template, "grm-gateway-2")
    assert not set(folders.values()) & set(other.values())
