"""What dashboards, alerts and scalers ask Prometheus, as the manifests have it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from loadtests.drills.manifests.rendered import ADAPTER, NAMESPACE, Rendered
from loadtests.drills.manifests.watching import Watching

RIGHTLY_EMPTY: Mapping[str, str] = {
    "ProxyGrmGatewaysGone": "asks whether there is no gateway, and there are two",
    "ProxyGrmJobsUncounted": "counts gateways that Redis does not answer, and it answers all",
}
_COMPARISONS = {"==", "!=", "<", ">", "<=", ">="}
_BOTH = {"and", "or", "unless"}
_RATE_INTERVAL = "1m"  # what Grafana makes of four times the PodMonitors' interval


@dataclass(frozen=True, slots=True)
class Question:
    """One query.

    Attributes:
        title: of the panel, or the name of the rule or scaler.
    """

    title: str
    query: str

    @property
    def of_engines(self) -> bool:
        """Whether it is about series of vLLM's."""
        return "vllm:" in self.query


def panels(rendered: Rendered) -> list[Question]:
    """What every panel of the dashboards asks."""
    (dashboards,) = (one for one in rendered.of("ConfigMap") if "dashboards" in _name(one))
    return [
        Question(
            f"{file}: {panel['title']}",
            target["expr"]
            .replace("$__rate_interval", _RATE_INTERVAL)
            .replace("$namespace", NAMESPACE),
        )
        for file, text in dashboards["data"].items()
        for panel in json.loads(text)["panels"]
        for target in panel.get("targets", [])
    ]


def rules(rendered: Rendered) -> list[Question]:
    """What every rule looks at: an alert's without the comparison that is false in peace."""
    (found,) = rendered.of("PrometheusRule")
    return [
        Question(rule.get("alert") or rule["record"], operand)
        for group in found["spec"]["groups"]
        for rule in group["rules"]
        for operand in operands(promql_parser.parse(rule["expr"]))
    ]


def operands(expression: Any) -> Iterator[str]:
    """The sides of an expression's comparisons, numbers left out."""
    if isinstance(expression, promql_parser.ParenExpr):
        yield from operands(expression.expr)
    elif isinstance(expression, promql_parser.BinaryExpr) and str(expression.op) in (
        _COMPARISONS | _BOTH
    ):
        yield from operands(expression.lhs)
        yield from operands(expression.rhs)
    elif not _is_number(expression):
        yield expression.prettify()


def _is_number(expression: Any) -> bool:
    if isinstance(expression, promql_parser.BinaryExpr):
        return _is_number(expression.lhs) and _is_number(expression.rhs)
    return isinstance(expression, promql_parser.NumberLiteral)


def scalers(rendered: Rendered) -> list[Question]:
    """What KEDA asks for each object, and prometheus-adapter for each metric of the HPAs."""
    found = [
        Question(f"keda: {_name(scaler)}", trigger["metadata"]["query"])
        for scaler in rendered.of("ScaledObject")
        for trigger in scaler["spec"]["triggers"]
    ]
    for rule in yaml.safe_load(ADAPTER.read_text())["rules"]["external"]:
        query = rule["metricsQuery"].replace("<<.LabelMatchers>>", f'namespace="{NAMESPACE}"')
        found.append(Question(f"hpa: {rule['name']['as']}", query))
    return found


def unanswered(watching: Watching, asked: list[Question], seconds: float) -> list[Question]:
    """Those for which there was no number in all that time, and should have been."""
    return [
        question
        for question in asked
        if question.title not in RIGHTLY_EMPTY and not answered(watching, question, seconds)
    ]


def answered(watching: Watching, question: Question, seconds: float) -> bool:
    """Whether there was a number for it; 0/0 is none."""
    return any(
        not math.isnan(float(value))
        for series in watching.ranged(question.query, seconds)
        for _, value in series["values"]
    )


def not_one_series(watching: Watching, asked: list[Question]) -> list[str]:
    """Scalers that are not given exactly one series now, and how many they are given."""
    counts = {question.title: len(watching.asked(question.query)) for question in asked}
    return [f"{title}: {count} series" for title, count in counts.items() if count != 1]


def _name(manifest: dict[str, Any]) -> str:
    return manifest["metadata"]["name"]
