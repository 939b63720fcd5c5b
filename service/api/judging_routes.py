"""``POST /score``, ``POST /rubric``, ``POST /verify`` and ``POST /rank``."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from service.api.answering import answered
from service.api.authentication import key_of
from service.api.gateway import Serving, gateway_of
from service.api.intake import body_came, received
from service.api.openapi import takes
from service.api.schemas import (
    RankAnswer,
    RankRequest,
    RubricAnswer,
    RubricRequest,
    ScoreAnswer,
    ScoreRequest,
    VerifyAnswer,
    VerifyRequest,
)
from service.calls import Call

router = APIRouter(tags=["judging"])


@router.post("/score", response_model=ScoreAnswer, openapi_extra=takes(ScoreRequest))
async def score(request: Request) -> Response:
    """Which of two responses is better, why, and how sure?

    An unreadable judgement is a 200 with `status: "abstain"` and a `reason`,
    never a score.
    """
    gateway = gateway_of(request)
    asked = await received(request, ScoreRequest)
    serving = await gateway.chosen(request, asked.question, asked.run_id)
    return await answered(
        request, serving, lambda: score_answer(serving, asked, body_came(request))
    )


@router.post("/rubric", response_model=RubricAnswer, openapi_extra=takes(RubricRequest))
async def rubric(request: Request) -> Response:
    """By what should these two responses be judged? The rubric's id can be given to `/score`."""
    gateway = gateway_of(request)
    asked = await received(request, RubricRequest)

    serving = await gateway.chosen(request, asked.question)

    async def work() -> RubricAnswer:
        done = await serving.scoring.write_rubric(_call(request, asked), asked.label)
        name = asked.id or f"rubric_{uuid4().hex}"
        return RubricAnswer.of(done, name, serving.release, asked.label)

    return await answered(request, serving, work)


@router.post("/verify", response_model=VerifyAnswer, openapi_extra=takes(VerifyRequest))
async def verify(request: Request) -> Response:
    """Does an evaluator who is shown nothing but the rubric find the same response better?

    The proxy's engine may start with the first of these. An abstention has no `reward`.
    """
    gateway = gateway_of(request)
    asked = await received(request, VerifyRequest)

    serving = await gateway.chosen(request, asked.question)

    async def work() -> VerifyAnswer:
        verified = await serving.verifying.verify(
            _call(request, asked), asked.better, asked.evaluator
        )
        return VerifyAnswer.of(verified, asked.id or f"verify_{uuid4().hex}", serving.release)

    return await answered(request, serving, work)


@router.post("/rank", response_model=RankAnswer, openapi_extra=takes(RankRequest))
async def rank(request: Request) -> Response:
    """In which order of quality do 2 to 64 responses stand, and how far apart?

    One rubric for all; then two at a time are compared, those first that tell most. `reward` is
    the net win rate: a group's rewards with mean 0.
    """
    gateway = gateway_of(request)
    asked = await received(request, RankRequest)
    await gateway.quotas.spend_rest(key_of(request), len(asked.responses))

    serving = await gateway.chosen(request, asked.question, asked.run_id)

    async def work() -> RankAnswer:
        ranked = await serving.rankings.rank(_call(request, asked), asked.options())
        return RankAnswer.of(ranked, asked.id or f"rank_{uuid4().hex}", serving.release)

    return await answered(request, serving, work)


async def score_answer(serving: Serving, asked: ScoreRequest, began: float) -> ScoreAnswer:
    """One comparison's answer, for a single request and for a line of a batch alike.

    Args:
        serving: who gives it.
        asked: the comparison.
        began: when its text was here, by the monotonic clock.
    """
    scored = await serving.scoring.score(replace(asked.call(), began=began))
    return ScoreAnswer.of(scored, asked.id or f"score_{uuid4().hex}", serving.release)


def _call(request: Request, asked: RubricRequest | VerifyRequest | RankRequest) -> Call:
    return replace(asked.call(), began=body_came(request))
