"""Dashboards, alerts and scalers name series that exist; a real Prometheus answers them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from loadtests.drills.site import free_port
from service.metrics import Metrics

from .conftest import CHART, NAMESPACE, ROOT, example, render

DASHBOARDS = {path.stem: path for path in sorted((CHART / "dashboards").glob("*.json"))}
RULES = CHART / "rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
BY_PROMETHEUS = {"namespace", "pod", "instance", "job"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@functools.cache
def series() -> dict[str, set[str]]:
    """Each series of the service and the labels it has."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics(CollectorRegistry())).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            labels = set(metric._labelnames)
            for suffix in SUFFIXES[family.type]:
                found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


@functools.cache
def series_of_vllm() -> set[str]:
    """What vLLM's own source registers; importing it takes half a minute."""
    found = importlib.util.find_spec("vllm")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "v1" / "metrics"
    text = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    names = set(re.findall(r'name="(vllm:\w+)"', text))
    return names | {f"{name}_total" for name in names}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def queries(dashboard: str) -> list[str]:
    panels = json.loads(DASHBOARDS[dashboard].read_text())["panels"]
    written = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [one.replace("$__rate_interval", "1m").replace("$namespace", ".*") for one in written]


def selectors(query: str) -> Iterator[Any]:
    """Every choice of series in a query."""
    waiting: list[Any] = [promql_parser.parse(query)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, promql_parser.VectorSelector):
            yield node
        elif isinstance(node, promql_parser.MatrixSelector):
            yield node.vector_selector
        for name in ("expr", "lhs", "rhs", "param"):
            inner = getattr(node, name, None)
            if isinstance(inner, promql_parser.Expr):
                waiting.append(inner)
        waiting.extend(getattr(node, "args", None) or [])


def check(query: str) -> int:
    """Says how many series it names; fails for one that nobody has."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    count = 0
    for selector in selectors(query):
        count += 1
        used = {matcher.name for matcher in selector.matchers.matchers}
        if selector.name.startswith("vllm:"):
            assert selector.name in series_of_vllm(), selector.name
        elif selector.name in recorded:
            assert used <= {"namespace"}, query
        else:
            assert selector.name in series(), selector.name
            assert used <= series()[selector.name] | BY_PROMETHEUS, query
    return count


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_names_series_that_exist(name: str) -> None:
    asked = queries(name)
    assert len(asked) >= 7
    assert sum(check(query) for query in asked) >= len(asked)


def test_alerts_name_series_that_exist() -> None:
    assert sum(check(rule["expr"]) for rule in rules()) >= len(rules())


def test_a_series_that_nobody_has_would_be_found() -> None:
    for spoilt in ("rate(proxy_grm_request_total[5m])", 'proxy_grm_queued{outcome="ok"}'):
        with pytest.raises(AssertionError):
            check(spoilt)


def test_buckets_that_are_asked_for_exist() -> None:
    text = RULES.read_text() + "".join(path.read_text() for path in DASHBOARDS.values())
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.stage_seconds.labels("total").observe(1)
    there = {
        (sample.name, sample.labels["le"])
        for family in registry.collect()
        for sample in family.samples
        if "le" in sample.labels
    }
    asked = re.findall(r'(proxy_grm_\w+_bucket)\{[^}]*le=\\?"([\d.]+)\\?"', text)
    assert len(asked) >= 7
    assert set(asked) <= there


def test_every_metric_is_on_a_dashboard_or_in_an_alert() -> None:
    asked = [query for name in DASHBOARDS for query in queries(name)]
    asked += [rule["expr"] for rule in rules()]
    named = {selector.name for query in asked for selector in selectors(query)}
    for metric in vars(Metrics(CollectorRegistry())).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            all_of_it = {family.name + suffix for suffix in SUFFIXES[family.type]}
            assert all_of_it & named or family.name in UNSHOWN, family.name


UNSHOWN = {"proxy_grm_rubric_attempts"}
"""Told in docs/api.md; too fine for a dashboard."""


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    pages: dict[str, set[str]] = {}
    for alert in alerts():
        page = ROOT / alert["annotations"]["runbook"]
        pages.setdefault(page.name, set()).add(alert["alert"])
        assert alert["labels"]["severity"] in ("page", "ticket")
    written = {path.name: path.read_text() for path in RUNBOOKS.glob("*.md")}
    index = written.pop("README.md")
    assert written.keys() == pages.keys()
    for name, text in written.items():
        assert set(re.findall(r"`(ProxyGrm\w+)`", text.splitlines()[2])) == pages[name]
        assert "## Look" in text
        assert "## Do" in text
        for alert in pages[name]:
            assert f"| `{alert}` |" in index
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert (RUNBOOKS / link).resolve().exists(), f"{name} links to {link}"


def test_the_chart_carries_rules_and_dashboards_as_they_are() -> None:
    rendered = example("keda")
    assert rendered.one("PrometheusRule", "grm")["spec"] == yaml.safe_load(RULES.read_text())
    files = rendered.one("ConfigMap", "grm-dashboards")["data"]
    assert files.keys() == {f"proxy-grm-{name}.json" for name in DASHBOARDS}
    for name, path in DASHBOARDS.items():
        assert json.loads(files[f"proxy-grm-{name}.json"]) == json.loads(path.read_text())


def test_promtool_takes_the_rules_and_they_fire_when_they_should(
    of_prometheus: Callable[[str], str],
) -> None:
    promtool = of_prometheus("promtool")
    for arguments in (["check", "rules", RULES], ["test", "rules", "rules_test.yaml"]):
        done = subprocess.run(
            [promtool, *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def scaling_queries() -> dict[str, str]:
    """What KEDA and prometheus-adapter ask, by where it is written."""
    found: dict[str, str] = {}
    for scaler in example("keda").of("ScaledObject"):
        (trigger,) = scaler["spec"]["triggers"]
        found[f"keda {scaler['metadata']['name']}"] = trigger["metadata"]["query"]
    adapter = yaml.safe_load((ROOT / "k8s" / "prometheus-adapter.yaml").read_text())
    for rule in adapter["rules"]["external"]:
        query = rule["metricsQuery"].replace("<<.LabelMatchers>>", f'namespace="{NAMESPACE}"')
        found[f"hpa {rule['name']['as']}"] = query
    return found


def test_scalers_ask_for_series_that_exist() -> None:
    asked = scaling_queries()
    assert len(asked) == 5
    assert all(check(query) for query in asked.values())


def test_hpas_ask_for_what_the_adapter_serves() -> None:
    adapter = yaml.safe_load((ROOT / "k8s" / "prometheus-adapter.yaml").read_text())
    served = {rule["name"]["as"] for rule in adapter["rules"]["external"]}
    scalers = example("hpa").of("HorizontalPodAutoscaler")
    asked = {one["spec"]["metrics"][0]["external"]["metric"]["name"] for one in scalers}
    assert asked == served


@pytest.fixture(scope="module")
def prometheus(
    of_prometheus: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A real Prometheus that scrapes two gateways' metrics."""
    binary = of_prometheus("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with contextlib.ExitStack() as stack:
        targets = []
        for number, name in enumerate(("grm-gateway-a", "grm-gateway-b")):
            registry = CollectorRegistry()
            fill(Metrics(registry), number + 1)
            server, thread = start_http_server(0, "127.0.0.1", registry)
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            labels = {"namespace": NAMESPACE, "pod": name}
            address = f"127.0.0.1:{server.server_port}"
            targets.append({"targets": [address], "labels": labels})
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "gateway", "static_configs": targets}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = [
            binary,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        while not seen(url, 2 * 3):
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield url


def fill(metrics: Metrics, number: int) -> None:
    """As a gateway that has worked; `number` tells it from others."""
    metrics.inflight.set(10 * number)
    metrics.queued.set(number)
    metrics.jobs_unfinished.set(1)
    metrics.job_lines_unfinished.set(500)
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*["judge" for _ in metric._labelnames])
    for outcome in ("ok", "overloaded"):
        metrics.requests.labels("/score", outcome).inc(number)
        metrics.requests.labels("/score/batch line", outcome).inc(number)


def seen(url: str, samples: int) -> bool:
    """Whether so many scrapes of the gateways are in."""
    with contextlib.suppress(httpx.HTTPError, ValueError):  # it is only starting
        found = asked(url, "sum(count_over_time(proxy_grm_queued[5m]))")
        return bool(found) and float(found[0]["value"][1]) >= samples
    return False


def asked(url: str, query: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=60).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    return answer["data"]["result"]


def test_scalers_are_given_one_series_over_two_gateways(prometheus: str) -> None:
    for where, query in scaling_queries().items():
        found = asked(prometheus, query)
        assert len(found) == 1, where
        expected = "500" if "lines" in query else "33"  # 10 + 1 and 20 + 2; the same 500 twice
        assert found[0]["value"][1] == expected, where


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_gets_an_answer(prometheus: str, name: str) -> None:
    for query in queries(name):
        found = asked(prometheus, query)
        of_engines = any(one.name.startswith("vllm:") for one in selectors(query))
        of_days = "proxy_grm:" in query
        assert found or of_engines or of_days, query


def test_alerts_are_evaluated_without_a_fault(prometheus: str) -> None:
    groups = httpx.get(f"{prometheus}/api/v1/rules", timeout=60).json()["data"]["groups"]
    states = [(rule["name"], rule["health"]) for group in groups for rule in group["rules"]]
    assert len(states) == len(rules())
    assert not [name for name, health in states if health == "err"]


def test_a_namespace_that_scales_itself_omits_replicas() -> None:
    for kind in ("keda", "hpa"):
        rendered = render({"autoscaling": {"kind": kind}})
        for name in ("gateway", "worker"):
            assert "replicas" not in rendered.one("Deployment", f"grm-{name}")["spec"]
        assert "replicas" not in rendered.one("StatefulSet", "grm-engine-judge")["spec"]
