"""What routes reach: the gateway's parts, built once by the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from models.release import Release
from service.admission import Admission
from service.api.bodies import Bodies
from service.engines import Engine
from service.evaluators import Roster
from service.flights import Flights
from service.honesty import Honesty
from service.jobs import JobStore
from service.metrics import Metrics
from service.process_pool import ProcessPool
from service.quotas import Quotas
from service.ranking import Rankings
from service.scoring import Scoring
from service.settings import Settings
from service.store import Store
from service.verifying import Verifying


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of a running gateway.

    Attributes:
        engine: the judge's, which decides whether the gateway is ready.
        bodies: how much of what callers send is in memory.
        quotas: what each key has used.
        store: what outlives a request.
        flights: what is in work and may be asked for again meanwhile.
        pool: where what strangers sent is read when it may take long.
    """

    settings: Settings
    release: Release
    engine: Engine
    admission: Admission
    scoring: Scoring
    verifying: Verifying
    rankings: Rankings
    roster: Roster
    honesty: Honesty
    jobs: JobStore
    metrics: Metrics
    bodies: Bodies
    pool: ProcessPool
    quotas: Quotas
    store: Store
    flights: Flights


def gateway_of(request: Request) -> Gateway:
    """The gateway that answers this request."""
    return request.app.state.gateway
