"""Two releases behind one gateway, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.errors import ReleaseInvalid

pytestmark = pytest.mark.anyio


@pytest.fixture
async def gateway(start_gateway, bare_release: str):
    return await start_gateway(images=None, rollout={"release": bare_release, "percent": 0})


def wanting(release: str, **more: str) -> dict[str, Any]:
    return {"headers": {"x-proxy-grm-release": release} | more}


async def test_they_are_listed_with_their_shares(gateway):
    listed = (await gateway.client.get("/releases")).json()["releases"]
    assert [(one["name"], one["percent"], one["engine"]) for one in listed] == [
        ("tiny", 100, "ready"),
        ("small", 0, "ready"),
    ]
    assert listed[0]["fingerprint"] != listed[1]["fingerprint"]
    assert (await gateway.client.get("/readyz")).json()["release"]["name"] == "tiny"


async def test_a_gateway_of_one_release_lists_it(start_gateway):
    alone = await start_gateway()
    listed = (await alone.client.get("/releases")).json()["releases"]
    assert [(one["name"], one["percent"]) for one in listed] == [("tiny", 100)]


@pytest.mark.parametrize("path", ["/score", "/rubric", "/rank"])
async def test_a_header_names_the_one_that_judges(path: str, gateway):
    asked = {"question": "How many?", "responses": ["One.", "Two."]}
    for name in ("tiny", "small"):
        answer = await gateway.client.post(path, json=asked, **wanting(name))
        assert answer.json()["release"]["name"] == name
    assert (await gateway.client.post(path, json=asked)).json()["release"]["name"] == "tiny"


async def test_each_has_its_own_cache(gateway):
    asked = {"question": "How many?", "responses": ["One.", "Two."]}
    for name in ("tiny", "small"):
        first, again = [
            (await gateway.client.post("/score", json=asked, **wanting(name))).json()
            for _ in range(2)
        ]
        assert (first["cached"], again["cached"]) == (False, True)


async def test_what_the_other_release_has_is_its_own(gateway):
    asked = {"question": "?", "responses": ["a", "b"], "rubric": {"text": "1. Truth"}}
    without_proxy = await gateway.client.post("/verify", json=asked, **wanting("small"))
    assert (without_proxy.status_code, without_proxy.json()["code"]) == (404, "not_found")


async def test_a_release_that_is_not_served_is_refused_by_name_and_by_fingerprint(gateway):
    asked = {"question": "How many?", "responses": ["One.", "Two."]}
    unknown = await gateway.client.post("/score", json=asked, **wanting("large"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    gone = await gateway.client.post("/score", json=asked, **wanting("0" * 32))
    assert (gone.status_code, gone.json()["code"]) == (409, "release_changed")
    assert "retry-after" not in gone.headers


async def test_a_run_goes_on_with_another_release_only_where_it_says_that_it_may(
    start_gateway, plain_release: str, bare_release: str
):
    asked = {"question": "How many?", "responses": ["One.", "Two."], "run_id": "grpo-7"}
    before = await start_gateway(release=plain_release)
    assert (await before.client.post("/score", json=asked)).status_code == 200
    after = await start_gateway(release=bare_release)
    refused = await after.client.post("/score", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (409, "release_changed")
    allowing = {"headers": {"x-proxy-grm-release-change": "allow"}}
    changed = await after.client.post("/score", json=asked, **allowing)
    assert changed.json()["release"]["name"] == "small"
    wrong = {"headers": {"x-proxy-grm-release-change": "yes"}}
    assert (await after.client.post("/score", json=asked, **wrong)).status_code == 422


async def test_lines_of_a_batch_choose_each_for_itself(
    start_gateway, plain_release: str, bare_release: str
):
    line = {"question": "How many?", "responses": ["One.", "Two."]}
    before = await start_gateway(release=plain_release)
    await before.client.post("/score", json=line | {"run_id": "old"})
    after = await start_gateway(release=bare_release)
    lines = [line | {"id": run, "run_id": run} for run in ("old", "new")]
    batch = await after.client.post("/score/batch", content="\n".join(map(json.dumps, lines)))
    found = {one["id"]: one for one in map(json.loads, batch.text.splitlines())}
    assert found["old"]["error"]["code"] == "release_changed"
    assert found["new"]["release"]["name"] == "small"


async def test_a_run_is_found_whichever_release_judged_it(gateway):
    asked = {"question": "How many?", "responses": ["One.", "Two."], "run_id": "canary"}
    await gateway.client.post("/score", json=asked, **wanting("small"))
    for serving in gateway.parts.servings:
        await serving.honesty.settled()
    assert (await gateway.client.get("/runs/canary")).json()["release"]["name"] == "small"


async def test_the_same_release_twice_is_refused(start_gateway, plain_release: str):
    with pytest.raises(ReleaseInvalid, match="the release itself"):
        await start_gateway(images=None, rollout={"release": plain_release})
