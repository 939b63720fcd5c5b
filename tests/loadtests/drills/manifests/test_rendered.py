from __future__ import annotations

import pytest

from loadtests.drills.manifests.rendered import Rendered, rendered


@pytest.fixture(scope="module")
def chart() -> Rendered:
    return rendered()


def test_it_installs_what_the_drill_is_about(chart: Rendered):
    replicas = {one.component: one.replicas for one in chart.templates}
    assert replicas == {"gateway": 2, "worker": 1, "engine-judge": 2, "redis": 1}
    assert all(len(one.spec["containers"]) == 1 for one in chart.templates)


def test_stateful_sets_keep_their_names(chart: Rendered):
    keep = {one.component for one in chart.templates if one.keeps_names}
    assert keep == {"engine-judge", "redis"}


def test_ports_are_found_by_name(chart: Rendered):
    gateway = chart.template("gateway")
    assert [gateway.port(name) for name in ("http", "metrics", 80)] == [8000, 9090, 80]


def test_replicas_without_a_scaler_are_those_of_the_object():
    found = rendered({"gateway": {"replicas": 5}})
    assert found.template("gateway").replicas == 5
