from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from service.keys import new_key

pytestmark = pytest.mark.anyio

KEYLESS = ["/livez", "/readyz", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"]


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture
def keys(keys_file: Path) -> dict[str, str]:
    """Keys by their names."""
    made = {name: new_key(keys_file, name, name, "score", None) for name in ("ours", "theirs")}
    made["few"] = new_key(keys_file, "few", "ours", "score", 2)
    made["root"] = new_key(keys_file, "root", "root", "admin", None)
    return made


@pytest.fixture
async def guarded(start_gateway, keys_file: Path, keys: dict[str, str]):
    return await start_gateway(api_keys_file=keys_file)


@pytest.fixture
def score(guarded, keys: dict[str, str]) -> Callable[..., Any]:
    async def ask(name: str, headers: dict[str, str] | None = None, **changes: Any):
        sent = {"authorization": f"Bearer {keys[name]}"} | (headers or {})
        body = {"question": "How many?", "responses": ["One.", "Two."]} | changes
        return await guarded.client.post("/score", json=body, headers=sent)

    return ask


@pytest.mark.parametrize("path", KEYLESS)
async def test_probes_and_pages_need_no_key(path: str, guarded):
    assert (await guarded.client.get(path)).status_code == 200


async def test_who_opens_the_address_alone_is_led_to_what_can_be_asked(guarded):
    answer = await guarded.client.get("/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/docs")


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer pgrm_unknown"},
        {"authorization": "Basic {key}"},
        {"authorization": "{key}"},
        {"x-api-key": "{key}"},
    ],
)
async def test_without_a_known_key_nothing_is_read(
    header: dict[str, str], guarded, keys: dict[str, str]
):
    sent = {name: value.format(key=keys["ours"]) for name, value in header.items()}
    for path in ("/score", "/rubric", "/verify", "/rank", "/score/batch", "/nowhere"):
        answer = await guarded.client.post(path, content=b"no json", headers=sent)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert guarded.engine.requests == []


async def test_a_known_key_is_answered(score):
    answer = await score("ours")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_metrics_are_for_admins(guarded, keys: dict[str, str]):
    for name, status in (("ours", 401), ("root", 200)):
        sent = {"authorization": f"Bearer {keys[name]}"}
        assert (await guarded.client.get("/metrics", headers=sent)).status_code == status


async def test_tenants_share_no_cache(score):
    await score("ours")
    assert (await score("theirs")).json()["cached"] is False
    assert (await score("ours")).json()["cached"] is True
    assert (await score("few")).json()["cached"] is True  # another key of the same tenant


async def test_tenants_share_no_rubrics(score):
    rubric = (await score("ours")).json()["rubric"]
    named = {"rubric": {"id": rubric["id"]}, "cache": "bypass"}
    assert (await score("ours", **named)).status_code == 200
    answer = await score("theirs", **named)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_tenants_share_no_pictures(score, picture):
    sent = picture(color="#024680")
    digest = hashlib.sha256(base64.b64decode(sent["data"])).hexdigest()
    await score("ours", images=[sent])
    assert (await score("ours", images=[{"sha256": digest}])).status_code == 200
    answer = await score("theirs", images=[{"sha256": digest}])
    assert answer.json()["code"] == "image_rejected"


async def test_an_admin_may_act_for_another_tenant_and_nobody_else_may(score):
    await score("ours")
    named = {"x-proxy-grm-tenant": "ours"}
    assert (await score("root", named)).json()["cached"] is True
    assert (await score("root")).json()["cached"] is False
    for own in ("ours", "theirs"):
        assert (await score(own, named)).status_code == 401


@pytest.mark.parametrize("name", ["a:b", "x" * 65, "{ours}", " "])
async def test_a_tenant_that_is_no_name_is_refused(name: str, score):
    answer = await score("root", {"x-proxy-grm-tenant": name})
    assert answer.json()["code"] in ("invalid_request", "unauthenticated")


async def test_a_key_asks_for_as_much_as_it_may(score):
    statuses = [(await score("few", seed=n)).status_code for n in range(5)]
    if statuses == [200] * 2 + [429] * 3:
        answer = await score("few")
        assert answer.json()["code"] == "rate_limited"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    else:  # a minute ended in between
        assert statuses.count(200) <= 4
    assert (await score("ours")).status_code == 200


async def test_the_lines_of_a_batch_count_one_each(guarded, keys: dict[str, str]):
    line = json.dumps({"question": "How many?", "responses": ["One.", "Two."]})
    answer = await guarded.client.post(
        "/score/batch",
        content="\n".join([line] * 6),
        headers={"authorization": f"Bearer {keys['few']}"},
    )
    told = [json.loads(one) for one in answer.text.splitlines()]
    limited = [one for one in told if one.get("error", {}).get("code") == "rate_limited"]
    assert len(told) == 6
    assert len(limited) in (2, 3, 4)  # 4 but for a minute that ended in between


def asked_about(responses: list[str]) -> dict[str, dict[str, Any]]:
    """What asks for a judgement of each response, by its path."""
    label = json.dumps({"question": "How many?", "reference": "Four."})
    return {
        "/rank": {"question": "How many?", "responses": responses},
        "/get_reward": {
            "query": [f"How many? {one}" for one in responses],
            "prompts": ["How many?"] * len(responses),
            "labels": [label] * len(responses),
        },
    }


@pytest.mark.parametrize("path", ["/rank", "/get_reward"])
async def test_a_ranking_and_a_dialects_rollouts_count_one_for_each_response(
    path: str, start_gateway, keys_file: Path, keys: dict[str, str]
):
    gateway = await start_gateway(api_keys_file=keys_file, dialects=("openrlhf",))
    sent = {"authorization": f"Bearer {keys['few']}"}  # 2 a minute
    body = asked_about(["One.", "Two."])[path]
    statuses = [
        (await gateway.client.post(path, json=body, headers=sent)).status_code for _ in range(4)
    ]
    assert statuses.count(200) in (1, 2)  # 1 but for a minute that ended in between
    assert statuses.count(429) == 4 - statuses.count(200)


@pytest.mark.parametrize("path", ["/rank", "/get_reward"])
async def test_what_no_minute_has_room_for_is_not_told_to_come_back(
    path: str, start_gateway, keys_file: Path, keys: dict[str, str]
):
    gateway = await start_gateway(api_keys_file=keys_file, dialects=("openrlhf",))
    body = asked_about(["One.", "Two.", "Three."])[path]
    few, ours = ({"authorization": f"Bearer {keys[name]}"} for name in ("few", "ours"))
    answer = await gateway.client.post(path, json=body, headers=few)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "3 judgements at once; this key may ask for 2 a minute" in answer.json()["detail"]
    assert gateway.engine.requests == []
    assert (await gateway.client.post(path, json=body, headers=ours)).status_code == 200


async def test_quotas_hold_over_all_gateways(start_gateway, keys_file: Path, keys: dict[str, str]):
    gateways = [await start_gateway(api_keys_file=keys_file) for _ in range(2)]
    sent = {"authorization": f"Bearer {keys['few']}"}
    body = {"question": "How many?", "responses": ["One.", "Two."]}
    statuses: list[int] = []
    for gateway in gateways * 3:
        answer = await gateway.client.post("/score", json=body, headers=sent)
        statuses.append(answer.status_code)
    assert statuses.count(200) in (2, 3, 4)  # 2 but for a minute that ended in between


async def test_no_key_and_no_header_of_one_reaches_the_log(guarded, score, keys: dict[str, str]):
    said = io.StringIO()
    with structlog.testing.capture_logs() as events:
        await score("ours")
        await guarded.client.post("/score", headers={"authorization": "Bearer pgrm_hunter2"})
        await score("ours", question=5)
    said.write(repr(events))
    for secret in (*keys.values(), "hunter2", "Bearer"):
        assert secret not in said.getvalue()


async def test_without_keys_everybody_here_may_ask(gateway):
    assert (await gateway.score()).status_code == 200
    assert (await gateway.client.get("/metrics")).status_code == 200


async def test_answers_carry_headers_that_keep_browsers_from_mischief(gateway):
    answer: httpx.Response = await gateway.score()
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in answer.headers
    preflight = await gateway.client.options(
        "/score",
        headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
    )
    assert preflight.status_code == 404
    assert "access-control-allow-origin" not in preflight.headers


async def test_tenants_share_no_jobs(guarded, keys: dict[str, str]):
    line = json.dumps({"question": "How many?", "responses": ["One.", "Two."]})
    owner = {"authorization": f"Bearer {keys['ours']}"}
    started = await guarded.client.post(
        "/jobs", content=line, headers=owner | {"content-type": "application/x-ndjson"}
    )
    assert started.status_code == 202
    path = f"/jobs/{started.json()['id']}"
    assert (await guarded.client.get(path, headers=owner)).status_code == 200
    for method in ("GET", "DELETE"):
        answer = await guarded.client.request(
            method, path, headers={"authorization": f"Bearer {keys['theirs']}"}
        )
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
