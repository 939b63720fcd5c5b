"""The chart's manifests, started as processes: a rolling restart of each kind loses nothing.

A Prometheus with the chart's PodMonitors and rules answers meanwhile what dashboards, alerts and
scalers ask.
"""

from __future__ import annotations

import asyncio
import time

from loadtests.drills.asking import known
from loadtests.drills.manifests import questions
from loadtests.drills.manifests.cluster import Cluster
from loadtests.drills.manifests.installing import installed
from loadtests.drills.manifests.loading import Load
from loadtests.drills.manifests.traffic import one_of_each
from loadtests.drills.manifests.watching import Watching
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Site

_SCRAPES = 2


def run(site: Site, scale: Scale) -> Row:
    """Installs, asks the scalers' queries, restarts each kind under load, asks all the others."""
    began = time.monotonic()
    with installed(site, scale) as cluster:
        watching = Watching(site, cluster)
        cases = asyncio.run(known(cluster.url, 32, headers=cluster.headers))
        load = Load.prepared(cluster, scale, cases)
        _everything_asked_twice(cluster, watching)
        scalers = questions.scalers(cluster.rendered)
        several = questions.not_one_series(watching, scalers)
        kinds = [kind for kind, pods in cluster.pods.items() if pods]
        rolled = _Rolled(cluster)
        rows = [load.during(kind, lambda kind=kind: rolled.of(kind)) for kind in kinds]
        _everything_asked_twice(cluster, watching)
        asked = questions.panels(cluster.rendered) + questions.rules(cluster.rendered)
        if scale.engine == "scripted":
            asked = [one for one in asked if not one.of_engines]
        seconds = time.monotonic() - began
        empty = questions.unanswered(watching, asked, seconds)
        unhealthy, fired = watching.unhealthy_rules(), watching.fired(seconds)
    return Row(
        f"a rolling restart of each of {', '.join(kinds)}, beside {load.rate:g}/s and a job each",
        sum(row.requests for row in rows),
        ok=sum(row.ok for row in rows),
        refused=sum(row.refused for row in rows),
        wrong=sum(row.wrong for row in rows),
        figures={
            **{f"{kind}_s": row.recovery_s or 0.0 for kind, row in zip(kinds, rows, strict=True)},
            "unclean": rolled.unclean,
            **load.met.figures,
            "queries": len(asked),
            "queries_empty": len(empty),
            "rules_unhealthy": len(unhealthy),
            "alerts": len(fired),
            "scaler_queries": len(scalers),
            "scalers_not_one": len(several),
        },
        notes=(
            *(note for row in rows for note in row.notes),
            *load.met.notes,
            *(f"no answer: {one.title}: {' '.join(one.query.split())}" for one in empty),
            *several,
            *(f"unhealthy: {rule}" for rule in unhealthy),
            *(f"fired: {alert}" for alert in fired),
        ),
    )


def _everything_asked_twice(cluster: Cluster, watching: Watching) -> None:
    """A series that begins is no increase yet: what is asked has to be read in between."""
    for _ in range(2):
        for _ in cluster.pods["gateway"]:
            one_of_each(cluster)
        watching.wait_until_read(_SCRAPES)


class _Rolled:
    """Rolling restarts.

    Attributes:
        unclean: containers that ended otherwise than by themselves with status 0.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.unclean = 0

    def of(self, kind: str) -> float:
        """Restarts all of a kind, one after the other; how long that took."""
        began = time.monotonic()
        for old in self._cluster.roll(kind):
            self.unclean += old.exit_status != 0 or old.restarts > 0
        return time.monotonic() - began
