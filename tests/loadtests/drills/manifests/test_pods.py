from __future__ import annotations

from typing import Any

import pytest

from loadtests.drills.manifests.pods import Readiness
from loadtests.drills.manifests.rendered import rendered

STARTUP = {"name": "startup", "periodSeconds": 5, "failureThreshold": 240}
READY = {"name": "ready", "periodSeconds": 5, "failureThreshold": 2}


def states(readiness: Readiness, *said: bool) -> list[bool]:
    found: list[bool] = []
    for well in said:
        readiness.saw(well)
        found.append(readiness.ready)
    return found


def test_without_probes_it_is_ready_at_once():
    readiness = Readiness({})
    assert readiness.ready
    assert readiness.due(100.0) is None


def test_it_is_asked_whether_it_has_started_before_it_is_asked_whether_it_is_ready():
    readiness = Readiness({"startupProbe": STARTUP, "readinessProbe": READY})
    assert readiness.due(0.0) is STARTUP
    assert states(readiness, False, True) == [False, False]
    assert readiness.due(0.1) is READY
    assert states(readiness, True) == [True]


def test_a_probe_is_due_once_a_period():
    readiness = Readiness({"readinessProbe": READY})
    assert readiness.due(10.0) is READY
    assert readiness.due(14.9) is None
    assert readiness.due(15.0) is READY


def test_it_loses_its_place_after_as_many_failures_in_a_row_as_the_manifest_says():
    readiness = Readiness({"readinessProbe": READY})
    said = (True, False, True, False, False, False, True)
    assert states(readiness, *said) == [True, True, True, True, False, False, True]


@pytest.mark.parametrize("component", ["gateway", "engine-judge", "redis"])
def test_the_charts_probes_have_what_is_read_of_them(component: str):
    container: dict[str, Any] = rendered().template(component).container
    readiness = Readiness(container)
    assert readiness.due(0.0) is container["startupProbe"]
    assert states(readiness, True, True) == [False, True]
