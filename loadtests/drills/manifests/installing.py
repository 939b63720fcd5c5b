"""The chart, installed without a cluster."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from loadtests.drills.manifests.cluster import ENGINE, Cluster
from loadtests.drills.manifests.rendered import rendered
from loadtests.drills.rows import NotHere, Scale
from loadtests.drills.site import Site

_AS_WRITTEN: Mapping[str, str] = MappingProxyType({})
_WITHOUT_ENGINES = {"PROXY_GRM_ENGINE": "scripted", "PROXY_GRM_SCRIPTED__SECONDS": "0.2"}


@contextmanager
def installed(
    site: Site, scale: Scale, engines: int | None = None, instead: Mapping[str, str] = _AS_WRITTEN
) -> Generator[Cluster]:
    """The chart with everything ready; gateways judge by script where there are no engines.

    Args:
        site: where processes live.
        scale: says what judges.
        engines: how many there are; absent, as many as the manifests say.
        instead: variables of gateways that stand over those of the manifests.
    """
    scripted = scale.engine == "scripted"
    instead = {**_WITHOUT_ENGINES, **instead} if scripted else instead
    cluster = Cluster(site, rendered(), instead)
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
