"""The chart, installed without a cluster."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from loadtests.drills.manifests.cluster import ENGINE, Cluster
from loadtests.drills.manifests.rendered import rendered
from loadtests.drills.rows import NotHere, Scale
from loadtests.drills.site import Site

_WITHOUT_ENGINES = {"PROXY_GRM_ENGINE": "scripted", "PROXY_GRM_SCRIPTED__SECONDS": "0.2"}


@contextmanager
def installed(site: Site, scale: Scale, engines: int | None = None) -> Generator[Cluster]:
    """The chart with everything ready; gateways judge by script where there are no engines.

    Args:
        site: where processes live.
        scale: says what judges.
        engines: how many there are; absent, as many as the manifests say.
    """
    scripted = scale.engine == "scripted"
    cluster = Cluster(site, rendered(), _WITHOUT_ENGINES if scripted else {})
    try:
        cluster.start("redis")
        if not scripted:
            cluster.start(ENGINE, engines)
        for component in ("gateway", "worker"):
            cluster.start(component)
        for component in cluster.pods:
            cluster.wait_until_ready(component)
        yield cluster
    finally:
        cluster.close()


def needs_engines(scale: Scale) -> None:
    """Says so where there are none.

    Raises:
        NotHere: gateways are to judge by script.
    """
    if scale.engine == "scripted":
        raise NotHere("it is about real engines: ENGINE=vllm")
