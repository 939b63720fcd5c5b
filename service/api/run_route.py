"""``GET /runs/{id}``: is a run's judge being fooled?"""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.api.gateway import gateway_of
from service.api.schemas import RunAnswer
from service.errors import NotFound

router = APIRouter(tags=["operations"])


@router.get("/runs/{run_id:path}")
async def run(request: Request, run_id: str) -> RunAnswer:
    """A run's monitors: position, length, abstentions, injection attempts, reliance on images.

    Counted in the background, so the last judgements may still be missing.
    """
    gateway = gateway_of(request)
    for serving in gateway.servings:
        found = await serving.honesty.run(run_id)
        if found is not None:
            return RunAnswer.of(found, run_id, serving.release)
    raise NotFound("no counts of a run with this id are kept here, or they can't be reached")
