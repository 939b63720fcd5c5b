"""What Kubernetes does with the chart's objects, as far as needed: pods, Services, rollouts."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence

from loadtests.drills.manifests.balancing import Balancer
from loadtests.drills.manifests.places import Places, made_secrets
from loadtests.drills.manifests.pods import LONGEST_START_S, Pod
from loadtests.drills.manifests.rendered import Rendered, Template
from loadtests.drills.site import Site, eventually, free_port

ENGINE = "engine-judge"
_ADMITTED = '"engine replica ready"'


class Cluster:
    """An installation on this machine.

    Args:
        site: where processes live.
        rendered: what is installed.
        instead: variables of gateways that stand over those of the manifests.

    Attributes:
        pods: those that run, by component.
        changed: is called when there are others than before.
        url: of the gateways' Service.
        api_key: of a caller.
    """

    def __init__(self, site: Site, rendered: Rendered, instead: Mapping[str, str]) -> None:
        secrets = made_secrets(site.folder)
        self._site = site
        self._places = Places(site.folder, rendered, secrets)
        self._instead = instead
        self._numbers = itertools.count(1)
        self.rendered = rendered
        self.pods: dict[str, list[Pod]] = {one.component: [] for one in rendered.templates}
        self.changed: Callable[[], None] = lambda: None
        self.api_key = secrets["client"]
        self._name_redis()
        self._service = self._gateways_service()

    @property
    def headers(self) -> Mapping[str, str]:
        """Of a caller's requests."""
        return {"authorization": f"Bearer {self.api_key}"}

    def _name_redis(self) -> None:
        """A Service with one pod is that pod."""
        template = self.rendered.template("redis")
        service = self.rendered.one("Service", template.owner["spec"]["serviceName"])
        (port,) = service["spec"]["ports"]
        address = self._places.addresses.of(f"{template.name}-0")
        named = f"{service['metadata']['name']}:{port['port']}"
        self._places.hosts[named] = f"{address}:{template.port(port['targetPort'])}"

    def _gateways_service(self) -> Balancer:
        template = self.rendered.template("gateway")
        (port,) = self.rendered.one("Service", template.name)["spec"]["ports"]
        here, target = ("127.0.0.1", free_port()), template.port(port["targetPort"])
        self._places.hosts[f"{template.name}:{port['port']}"] = f"{here[0]}:{here[1]}"
        self.url = f"http://{here[0]}:{here[1]}"
        return Balancer(
            here, lambda: [(pod.address, target) for pod in self.pods["gateway"] if pod.ready]
        )

    def start(self, component: str, replicas: int | None = None) -> None:
        """Starts a component's pods; as many as the manifests say, or so many."""
        template = self.rendered.template(component)
        there = len(self.pods[component])
        for number in range(there, template.replicas if replicas is None else replicas):
            self._add(template, number)
        if component == "gateway":
            self._service.start()

    def wait_until_ready(self, component: str) -> float:
        """Waits for all of them; how long that took."""
        return sum(pod.wait_until_ready() for pod in self.pods[component])

    def admissions(self, engine: Pod) -> list[int]:
        """How often each gateway has found that engine ready, as it logs."""
        found: list[int] = []
        for gateway in self.pods["gateway"]:
            lines = gateway.process.log.read_text().splitlines()
            said = [line for line in lines if _ADMITTED in line and f'"{engine.url}"' in line]
            found.append(len(said))
        return found

    def wait_until_used(self, engine: Pod, seen: Sequence[int] | None = None) -> None:
        """Waits until every gateway has found it ready, more often than it had `seen` it."""

        def used() -> bool:
            now = self.admissions(engine)
            return all(map(operator.gt, now, seen or [0] * len(now)))

        eventually(f"every gateway uses {engine.name}", used, LONGEST_START_S)

    def roll(self, component: str) -> Iterator[Pod]:
        """Replaces each pod as its owner does; yields every one that has been stopped."""
        template = self.rendered.template(component)
        for old in reversed(self.pods[component].copy()):
            if not template.keeps_names:  # a new one first (maxSurge 1, maxUnavailable 0)
                self._add(template).wait_until_ready()
            old.stop()
            self.pods[component].remove(old)
            self.changed()
            if template.keeps_names:
                self._add(template, int(old.name.rpartition("-")[2])).wait_until_ready()
            yield old

    def _add(self, template: Template, number: int = 0) -> Pod:
        """Another pod; those of a StatefulSet have numbers from 0, others any."""
        if not template.keeps_names:
            number = next(self._numbers)
        instead = self._instead if template.component == "gateway" else {}
        pod = Pod(self._site, self._places, template, f"{template.name}-{number}", instead)
        self.pods[template.component].append(pod)
        self.pods[template.component].sort(key=lambda one: one.name)
        pod.start()
        self.changed()
        return pod

    def close(self) -> None:
        """Lets all pods go, before the site ends their processes."""
        for pod in itertools.chain(*self.pods.values()):
            pod.leave()
        self._service.stop()
