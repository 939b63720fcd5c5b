"""Is it alive, would it judge right now, and what has it done so far?"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from service.api.gateway import gateway_of
from service.api.schemas import ConfiguredOut, ReleaseOut
from service.engines import EngineState
from service.errors import Draining, EngineUnavailable, NotFound

router = APIRouter(tags=["operations"])


class Alive(BaseModel):
    """The process answers."""

    status: str = "alive"


class Ready(BaseModel):
    """The engine, unless it was excluded, has made a real forward pass and takes work."""

    status: str = "ready"
    release: ReleaseOut


class Evaluators(BaseModel):
    """All of them, `self` first."""

    evaluators: tuple[ConfiguredOut, ...]


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Whoever opens the address in a browser wants to read what can be asked here."""
    return RedirectResponse("docs")


@router.get("/livez")
async def livez() -> Alive:
    """200 while this process answers at all, overloaded or not."""
    return Alive()


class ServedOut(ReleaseOut):
    """A release that judges here."""

    percent: float = Field(description="of the runs and questions that name no release")
    engine: EngineState = Field(description="of the judge")


class Releases(BaseModel):
    """All of them; the first decides whether the gateway is ready."""

    releases: tuple[ServedOut, ...]


@router.get("/readyz")
async def readyz(
    request: Request,
    exclude: Annotated[
        Literal["engine"] | None,
        Query(description="`engine`: also 200 while the engine is starting or down"),
    ] = None,
) -> Ready:
    """200 when a judgement would be made right now; 503 while starting, draining or down.

    Where gateways share their engines, a load balancer should exclude the engine: else, with the
    last engine gone, no gateway is left to say so, and callers meet refused connections.
    """
    gateway = gateway_of(request)
    if gateway.admission.draining:
        raise Draining("this gateway is stopping")
    if exclude != "engine" and gateway.engine.state != "ready":
        raise EngineUnavailable(f"the engine is {gateway.engine.state}")
    return Ready(release=ReleaseOut.of(gateway.release))


@router.get("/releases")
async def releases(request: Request) -> Releases:
    """Which releases judge here; the header `X-Proxy-GRM-Release` names one of them."""
    gateway = gateway_of(request)
    return Releases(
        releases=tuple(
            ServedOut(
                **ReleaseOut.of(one.release).model_dump(),
                percent=gateway.rollout.percent(one.release),
                engine=one.engine.state,
            )
            for one in gateway.servings
        )
    )


@router.get("/evaluators")
def evaluators(request: Request) -> Evaluators:
    """Who can be named in `evaluators`, and whether they can be reached."""
    roster = gateway_of(request).roster
    return Evaluators(evaluators=tuple(ConfiguredOut.of(one) for one in roster))


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Prometheus text: this service's series, and vLLM's where it runs in this process."""
    gateway = gateway_of(request)
    if gateway.settings.metrics_port is not None:
        raise NotFound("metrics have a port of their own here")
    registry = gateway.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
