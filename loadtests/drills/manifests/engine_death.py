"""One of two engines killed with -9 under load: the other does its work until it is there again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from loadtests.drills.asking import known
from loadtests.drills.manifests.cluster import ENGINE, Cluster
from loadtests.drills.manifests.installing import installed, needs_engines
from loadtests.drills.manifests.loading import Load
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Site


def run(site: Site, scale: Scale) -> Row:
    """Kills all processes of an engine while it works for callers and for a job."""
    needs_engines(scale)
    with installed(site, scale) as cluster:
        cases = asyncio.run(known(cluster.url, 32, headers=cluster.headers))
        load = Load.prepared(cluster, scale, cases)
        engines = cluster.pods[ENGINE]
        row = load.during(
            f"one of {len(engines)} engines killed with -9, beside {load.rate:g}/s and a job",
            lambda: _killed(cluster),
        )
        kills = sum(pod.restarts for pod in engines)
    return replace(
        row, figures={"kills": kills, **load.met.figures}, notes=row.notes + load.met.notes
    )


def _killed(cluster: Cluster) -> float:
    """Kills the last engine in the midst of it; seconds until every gateway uses it again."""
    victim = cluster.pods[ENGINE][-1]
    seen = cluster.admissions(victim)
    began = time.monotonic()
    victim.kill()
    cluster.wait_until_used(victim, seen)
    return time.monotonic() - began
