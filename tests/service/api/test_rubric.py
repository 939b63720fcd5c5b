from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from service.engines import Generation

pytestmark = pytest.mark.anyio

ASKED = {"question": "Which?", "responses": ["One.", "Two."]}


async def test_a_rubric_is_written_read_and_named(gateway):
    answer = await gateway.client.post("/rubric", json=ASKED)
    assert answer.status_code == 200
    found = answer.json()
    assert set(found.pop("timing")) == {"queue_s", "image_s", "engine_s", "total_s"}
    assert re.fullmatch(r"rubric_[0-9a-f]{32}", found.pop("id"))
    assert re.fullmatch(r"rub_[0-9a-f]{24}", found["rubric"].pop("id"))
    assert found.pop("usage")["completion_tokens"] > 0
    assert found == {
        "status": "ok",
        "reason": None,
        "rubric": {
            "text": "1. Accuracy (70%): it matches the image.\n"
            "2. Relevance (30%): it answers what was asked.",
            "criteria": [
                {
                    "name": "Accuracy",
                    "description": "it matches the image.",
                    "weight": pytest.approx(0.7),
                },
                {
                    "name": "Relevance",
                    "description": "it answers what was asked.",
                    "weight": pytest.approx(0.3),
                },
            ],
            "justification": "Being right matters most.",
            "record": None,
        },
        "evaluators": [],
        "agreement": None,
        "release": {
            "name": "tiny",
            "fingerprint": gateway.parts.release.fingerprint,
            "purpose": "demo",
        },
    }
    assert "engine;dur=" in answer.headers["server-timing"]


async def test_a_written_rubric_can_be_judged_by(gateway):
    written = (await gateway.client.post("/rubric", json=ASKED)).json()["rubric"]
    judged = await gateway.score(rubric={"id": written["id"]}, depth="verdict")
    assert judged.status_code == 200
    assert judged.json()["rubric"] == written
    (_, deciding) = gateway.engine.requests
    assert deciding.max_tokens == 1


async def test_an_id_a_label_and_a_picture_are_taken(gateway, picture):
    answer = await gateway.client.post(
        "/rubric", json=ASKED | {"id": "mine", "label": 2, "images": [picture()]}
    )
    assert answer.json()["id"] == "mine"
    assert len(gateway.engine.requests[0].prompt.images) == 1


@pytest.mark.parametrize(
    ("generation", "reason"),
    [
        (Generation("<rubric>\n1. Co", True, 10, 5), "truncated"),
        (Generation("I would rather not.", False, 10, 5), "unreadable"),
        (Generation("<rubric>\n \n</rubric>", False, 10, 5), "unreadable"),
    ],
)
async def test_a_rubric_that_cannot_be_read_is_an_abstention(
    generation: Generation, reason: str, start_gateway
):
    gateway = await start_gateway(lambda _: generation)
    answer = await gateway.client.post("/rubric", json=ASKED)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["status"], found["reason"], found["rubric"]) == ("abstain", reason, None)
    assert found["usage"]["prompt_tokens"] == 10
    assert gateway.count("proxy_grm_abstentions_total", reason=reason) == 1
    assert gateway.count("proxy_grm_requests_total", route="/rubric", outcome="abstain") == 1


async def test_evaluators_are_not_found_while_none_are_configured(gateway):
    answer = await gateway.client.post("/rubric", json=ASKED | {"evaluators": ["proxy"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert gateway.engine.requests == []


async def test_a_late_rubric_is_a_504_and_stops_in_the_engine(start_gateway, late):
    gateway = await start_gateway(seconds=3600)

    async def ask(timeout_s: float) -> httpx.Response:
        return await gateway.client.post("/rubric", json=ASKED | {"timeout_s": timeout_s})

    await late(ask, gateway.engine)
    assert (gateway.engine.running, gateway.engine.cancelled) == (0, 1)


async def test_a_caller_that_hangs_up_stops_its_rubric_in_the_engine(start_gateway, until):
    gateway = await start_gateway(seconds=60, listening=True)
    asking = asyncio.create_task(gateway.client.post("/rubric", json=ASKED))
    await until(lambda: gateway.engine.running == 1)
    asking.cancel()
    await until(lambda: gateway.engine.cancelled == 1)
    assert gateway.engine.running == 0


async def test_rubrics_share_the_bounds_with_judgements(start_gateway, until):
    gateway = await start_gateway(seconds=60, admission={"running": 1, "waiting": 0})
    judging = asyncio.create_task(gateway.score())
    await until(lambda: gateway.engine.running == 1)
    answer = await gateway.client.post("/rubric", json=ASKED)
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    judging.cancel()
    await until(lambda: gateway.engine.running == 0)
