from __future__ import annotations

import promql_parser
import pytest

from loadtests.drills.manifests import questions
from loadtests.drills.manifests.rendered import rendered

CHART = rendered()


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("sum(a) > 0.05", ["sum(a)"]),
        ("a > 14.4 * 0.005 and b > 1", ["a", "b"]),
        ("abs(a / b - 0.5) > 0.15", ["abs(a / b - 0.5)"]),
        ("a > 0.2 * sum(b)", ["a", "0.2 * sum(b)"]),
        ("(a == 1) unless b", ["a", "b"]),
        ("sum(a)", ["sum(a)"]),
    ],
)
def test_what_an_alert_looks_at_is_what_it_compares(expression: str, asked: list[str]):
    found = questions.operands(promql_parser.parse(expression))
    assert [" ".join(one.split()) for one in found] == asked


def test_every_alert_and_panel_is_asked_about():
    (rule,) = CHART.of("PrometheusRule")
    named = {
        one.get("alert") or one["record"]
        for group in rule["spec"]["groups"]
        for one in group["rules"]
    }
    asked = questions.rules(CHART)
    assert {one.title for one in asked} == named
    assert questions.RIGHTLY_EMPTY.keys() <= named
    assert not [one for one in asked if "$" in one.query]
    panels = questions.panels(CHART)
    assert {one.title.split(":")[0] for one in panels} == {
        f"proxy-grm-{name}.json" for name in ("jobs", "judging", "service")
    }
    assert not [one for one in panels if "$" in one.query]


def test_scalers_are_those_of_keda_and_of_the_adapter():
    titles = [one.title for one in questions.scalers(CHART)]
    keda = [f"keda: grm-{name}" for name in ("gateway", "worker", "engine-judge")]
    assert titles == [*keda, "hpa: proxy_grm_load", "hpa: proxy_grm_lines"]
    assert not [one for one in questions.scalers(CHART) if "<<" in one.query]
