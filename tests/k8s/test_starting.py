"""Gateway, worker and Redis, started as their manifests say: commands, arguments, variables."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from loadtests.drills.jobs import job_lines, sent_job
from loadtests.drills.manifests.cluster import Cluster
from loadtests.drills.manifests.pods import Pod
from loadtests.drills.manifests.rendered import rendered
from loadtests.drills.rows import Scale
from loadtests.drills.site import eventually, metric, site


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    values = {"worker": {"drainSeconds": 1}, "gateway": {"drainSeconds": 1, "replicas": 1}}
    with site(Scale()) as place:
        made = Cluster(place, rendered(values), {})
        try:
            yield made
        finally:
            made.close()


def started(cluster: Cluster, component: str) -> Pod:
    cluster.start(component)
    (pod,) = cluster.pods[component]
    return pod


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).is_success
    except httpx.TransportError:
        return False


def test_what_the_manifests_start_works_together(cluster: Cluster) -> None:
    redis, gateway = started(cluster, "redis"), started(cluster, "gateway")
    redis.wait_until_ready()
    eventually("the gateway lives", lambda: answers(f"{gateway.url}/livez"), 600)
    ready = httpx.get(f"{gateway.url}/readyz", timeout=60)
    assert ready.status_code == 503  # no engine is there
    assert not gateway.ready
    cluster.url = gateway.url  # the Service has nobody to send to
    sent_job(cluster, job_lines(3))
    worker = started(cluster, "worker")

    def lines() -> float:
        return metric(f"http://{gateway.address}:9090", "proxy_grm_job_lines_unfinished")

    eventually("the job is told", lambda: lines() == 3, 600)
    eventually("the worker works", lambda: "worker started" in worker.process.log.read_text(), 600)
    for pod in (worker, gateway, redis):
        pod.stop()
        assert (pod.exit_status, pod.restarts) == (0, 0), pod.name
        assert "Traceback" not in pod.process.log.read_text()
