"""A Prometheus that reads what PodMonitors choose and has the rules of the PrometheusRule."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import time
from typing import Any

import httpx
import yaml

from loadtests.drills.manifests.cluster import Cluster
from loadtests.drills.manifests.rendered import NAMESPACE, Manifest
from loadtests.drills.rows import DrillFailed, NotHere
from loadtests.drills.site import Process, Site, eventually, free_port

_EVALUATED_EVERY = "15s"


class Watching:
    """Prometheus, configured as its operator would from the chart's objects.

    Attributes:
        url: where it answers.
    """

    def __init__(self, site: Site, cluster: Cluster) -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            raise NotHere("prometheus is not installed (apt-get install prometheus)")
        self._cluster = cluster
        self._folder = site.folder / "prometheus"
        self._folder.mkdir()
        self._monitors = cluster.rendered.of("PodMonitor")
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(self._configured()))
        self._target()
        cluster.changed = self._target
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        command = [binary, f"--config.file={self._folder / 'prometheus.yaml'}"]
        command += [f"--storage.tsdb.path={self._folder / 'data'}"]
        command += [f"--web.listen-address={address}"]
        self._process = Process(command, {}, site.folder / "prometheus.log")
        site.start(self._process)

    def _configured(self) -> dict[str, Any]:
        (rules,) = self._cluster.rendered.of("PrometheusRule")
        (self._folder / "rules.yaml").write_text(yaml.safe_dump(rules["spec"]))
        return {
            "global": {"evaluation_interval": _EVALUATED_EVERY},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [_scraped(monitor) for monitor in self._monitors],
        }

    def _target(self) -> None:
        """Names the pods that are there now, with the labels that the operator gives them."""
        for monitor in self._monitors:
            whole = self._folder / "written"
            whole.write_text(json.dumps(self._targets(monitor)))
            whole.rename(self._folder / _targets_file(monitor))

    def _targets(self, monitor: Manifest) -> list[dict[str, Any]]:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        return [
            {
                "targets": [f"{pod.address}:{pod.template.port(endpoint['port'])}"],
                "labels": {
                    "namespace": NAMESPACE,
                    "pod": pod.name,
                    "container": pod.template.container["name"],
                },
            }
            for pod in itertools.chain(*self._cluster.pods.values())
            if wanted <= pod.template.labels.items()
        ]

    def wait_until_read(self, times: int) -> None:
        """Waits until each pod that is there has been read so often from now on."""
        count = sum(len(self._targets(monitor)) for monitor in self._monitors)
        began = time.monotonic()

        def read() -> bool:
            seconds = max(1, math.floor(time.monotonic() - began))
            return bool(self.asked(f"count(sum_over_time(up[{seconds}s]) >= {times}) == {count}"))

        eventually("Prometheus reads every pod", read)

    def asked(self, query: str) -> list[dict[str, Any]]:
        """The series that a query has now."""
        return self._result("query", {"query": query})

    def ranged(self, query: str, seconds: float, step_s: float = 15) -> list[dict[str, Any]]:
        """The series that it has had in the last so many seconds."""
        (now,) = self.asked("vector(time())")
        end = float(now["value"][1])
        asked = {"start": str(end - seconds), "end": str(end), "step": str(step_s)}
        return self._result("query_range", {"query": query} | asked)

    def fired(self, seconds: float) -> list[str]:
        """Alerts that fired in the last so many seconds."""
        found = self.ranged('ALERTS{alertstate="firing"}', seconds)
        return sorted({series["metric"]["alertname"] for series in found})

    def unhealthy_rules(self) -> list[str]:
        """Rules that cannot be evaluated."""
        groups = httpx.get(f"{self.url}/api/v1/rules", timeout=60).json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [rule["name"] for rule in rules if rule["health"] == "err"]

    def _result(self, kind: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        if not self._process.runs:
            raise DrillFailed(f"Prometheus ended: {self._process.log.read_text()[-2000:]}")
        try:
            answer = httpx.get(f"{self.url}/api/v1/{kind}", params=asked, timeout=60).json()
        except (httpx.HTTPError, ValueError):  # it is only starting
            return []
        if answer["status"] != "success":
            raise DrillFailed(f"{asked['query']}: {answer}")
        return answer["data"]["result"]


def _targets_file(monitor: Manifest) -> str:
    return f"targets-{monitor['metadata']['name']}.json"


def _scraped(monitor: Manifest) -> dict[str, Any]:
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    return {
        "job_name": f"{NAMESPACE}/{monitor['metadata']['name']}",
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": "10s",
        "file_sd_configs": [{"files": [_targets_file(monitor)]}],
    }
