"""vLLM in processes of their own: one or many OpenAI servers, found by their URLs.

A request goes to the replica that has read its pictures before. One that dies before it has
answered is asked no more until it is back, and its requests are tried once on another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import httpx
import structlog
from pydantic import SecretStr
from typing_extensions import override

from models.release import Role
from service.engines.affinity import overloaded, prefix_key, ranked
from service.engines.contract import Engine, EngineState, Generation, GenerationRequest
from service.engines.remote_chat import ReplicaLost
from service.engines.remote_replica import Replica
from service.errors import EngineUnavailable
from service.metrics import Metrics

_log = structlog.get_logger(__name__)

_TRIES = 2


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of a role.

    Attributes:
        urls: where they are.
        name: under which one of ours has the weights of the release; a server that others
            started has the weights that those say it has.
        api_key: what they were started with, if they were.
    """

    urls: tuple[str, ...]
    name: str
    api_key: SecretStr | None = None


class RemoteEngine(Engine):
    """One role of a release on vLLM servers that others start and stop.

    Args:
        role: what they are asked for.
        servers: where that is.
        metrics: counts their deaths.
        transport: used instead of the network.
        look_every_s: how often each server's health is asked.
        patience_s: how long nothing may come of a server's work; see `Progress`.
    """

    def __init__(
        self,
        role: Role,
        servers: Servers,
        metrics: Metrics,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        look_every_s: float = 2.0,
        patience_s: float = 60.0,
    ) -> None:
        secret = servers.api_key.get_secret_value() if servers.api_key else None
        key = {"authorization": f"Bearer {secret}"} if secret else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._client = httpx.AsyncClient(headers=key, limits=limits, transport=transport)
        died = metrics.engine_deaths.labels
        self.replicas = tuple(
            Replica(url, role, servers.name, self._client, died(url).inc, patience_s)
            for url in servers.urls
        )
        self.metrics = metrics
        self._look_every_s = look_every_s
        self._looking: tuple[asyncio.Task[None], ...] = ()
        self._stopped = True

    @property
    @override
    def state(self) -> EngineState:
        states = {replica.state for replica in self.replicas}
        if self._stopped:
            return "stopped"
        return "ready" if "ready" in states else "starting" if "unseen" in states else "down"

    @property
    @override
    def running(self) -> int:
        return sum(replica.load for replica in self.replicas)

    @override
    async def start(self) -> None:
        self._stopped, self.refused = False, None
        for replica in self.replicas:
            replica.begin()
        self._looking = tuple(
            asyncio.create_task(self._look(replica), name=f"look at {replica.url}")
            for replica in self.replicas
        )

    @override
    async def stop(self) -> None:
        self._stopped = True
        for looking in self._looking:
            looking.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)
        for replica in self.replicas:
            replica.abandon()

    @override
    async def generate(self, request: GenerationRequest) -> Generation:
        tried: dict[Replica, ReplicaLost] = {}
        while len(tried) < _TRIES and (replica := self._chosen(request, tried)) is not None:
            if tried:
                self.metrics.engine_retries.inc()
            try:
                return await replica.generate(request)
            except ReplicaLost as lost:
                _log.warning("a request lost its engine", url=replica.url, reason=str(lost))
                tried[replica] = lost
                await replica.doubt(lost)
        if tried and all(lost.busy for lost in tried.values()):
            raise EngineUnavailable("the engine's queue is full", retry_after_s=1)
        if tried:
            raise EngineUnavailable("the engine failed on this request")
        raise EngineUnavailable(f"the engine is {self.state}")

    def _chosen(self, request: GenerationRequest, tried: Collection[Replica]) -> Replica | None:
        ready = [one for one in self.replicas if one.state == "ready" and one not in tried]
        order = ranked(prefix_key(request.prompt), ready, lambda replica: replica.url)
        loads = [replica.load for replica in ready]
        free = (replica for replica in order if not overloaded(replica.load, loads))
        return next(free, None)

    async def _look(self, replica: Replica) -> None:
        while True:
            try:
                await replica.look()
            except Exception:  # what it answered is none of ours
                _log.exception("unforeseen error at a look at an engine replica", url=replica.url)
                replica.avoid()
            if all(one.state == "refused" for one in self.replicas):
                self.refused = replica.refused
            await asyncio.sleep(self._look_every_s)
