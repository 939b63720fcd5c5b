"""What routes reach: the gateway's parts, built once by the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from models.release import Release
from service.admission import Admission
from service.api.bodies import Bodies
from service.engines import Engine
from service.errors import InvalidRequest
from service.evaluators import Roster
from service.flights import Flights
from service.honesty import Honesty
from service.jobs import JobStore
from service.metrics import Metrics
from service.process_pool import ProcessPool
from service.quotas import Quotas
from service.ranking import Rankings
from service.rollout import Rollout, Wish
from service.scoring import Scoring
from service.settings import Settings
from service.store import Store
from service.verifying import Verifying

RELEASE_HEADER = "x-proxy-grm-release"
"""Name or fingerprint of the release that is to judge."""

CHANGE_HEADER = "x-proxy-grm-release-change"
"""``allow``: a run may go on with another release than it began with."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A release, and what answers with it.

    Attributes:
        engine: the judge's.
    """

    release: Release
    engine: Engine
    scoring: Scoring
    verifying: Verifying
    rankings: Rankings
    roster: Roster
    honesty: Honesty


@dataclass(frozen=True, slots=True)
class Gateway(Serving):
    """The parts of a running gateway, with the release that decides whether it is ready.

    Attributes:
        beside: the one that is rolled out beside it; None: there is none.
        rollout: which of them judges what.
        bodies: how much of what callers send is in memory.
        quotas: what each key has used.
        store: what outlives a request.
        flights: what is in work and may be asked for again meanwhile.
        pool: where what strangers sent is read when it may take long.
    """

    settings: Settings
    beside: Serving | None
    rollout: Rollout
    admission: Admission
    jobs: JobStore
    metrics: Metrics
    bodies: Bodies
    pool: ProcessPool
    quotas: Quotas
    store: Store
    flights: Flights

    @property
    def servings(self) -> tuple[Serving, ...]:
        """Its own release, and the one beside it where there is one."""
        return (self,) if self.beside is None else (self, self.beside)

    async def chosen(self, request: Request, question: str, run_id: str | None = None) -> Serving:
        """The release that judges a call, by what its headers say and what it belongs to.

        Raises:
            InvalidRequest: a header says nothing that it can say.
            NotFound, ReleaseChanged: see `Rollout.choose`.
        """
        change = request.headers.get(CHANGE_HEADER)
        if change not in (None, "allow"):
            raise InvalidRequest(f"{CHANGE_HEADER} can only be allow")
        wanted = request.headers.get(RELEASE_HEADER)
        wish = Wish(question, run_id, wanted, may_change=change is not None)
        release = await self.rollout.choose(wish)
        return next(one for one in self.servings if one.release is release)


def gateway_of(request: Request) -> Gateway:
    """The gateway that answers this request."""
    return request.app.state.gateway
