from __future__ import annotations

from collections import Counter

import httpx
import pytest
from proxy_grm_client import AsyncClient, ProxyGrmError

from loadtests.drills.manifests.loading import Tallied, Tally

pytestmark = pytest.mark.anyio
PROBLEM = {"code": "engine_unavailable", "detail": "the engine is down", "status": 503}


async def test_what_calls_meet_with_before_they_are_tried_again_is_counted():
    waiting: list[httpx.Response | httpx.TransportError] = [
        httpx.Response(503, json=PROBLEM),
        httpx.ReadError("broken"),
        httpx.Response(503, json=PROBLEM),
        httpx.Response(502, text="<html>"),
        httpx.Response(422, json=PROBLEM | {"code": "invalid_request"}),
    ]

    def answered(_: httpx.Request) -> httpx.Response:
        one = waiting.pop(0)
        if isinstance(one, httpx.TransportError):
            raise one
        return one

    tally = Tally()
    network = Tallied(httpx.MockTransport(answered), tally)
    async with AsyncClient("http://there", transport=network) as client:
        for _ in range(2):
            with pytest.raises(ProxyGrmError):
                await client.score("Which?", ["One.", "Two."])
    assert waiting == []
    assert tally.refusals == Counter(engine_unavailable=2)
    assert tally.others == Counter({"ReadError": 1, "502": 1, "invalid_request": 1})
    assert tally.figures == {"retried_refusals": 2, "retried_others": 3}
    assert "tried again: 2 × engine_unavailable" in tally.notes


async def test_good_answers_are_no_matter():
    tally = Tally()
    network = Tallied(httpx.MockTransport(lambda _: httpx.Response(200, text="well")), tally)
    async with httpx.AsyncClient(transport=network) as client:
        assert (await client.get("http://there")).text == "well"
    assert (tally.refusals, tally.others) == (Counter(), Counter())
