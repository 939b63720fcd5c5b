from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
import structlog

pytestmark = pytest.mark.anyio

ASKED = {"question": "Which?", "responses": ["One.", "Two."]}
MADE_ID = re.compile(r"req_[0-9a-f]{32}")


async def test_every_answer_has_an_id_of_its_own(gateway):
    answers = [await gateway.score(), await gateway.client.get("/livez"), await gateway.score()]
    answers.append(await gateway.client.get("/nowhere"))
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 4
    assert all(MADE_ID.fullmatch(one) for one in ids)


@pytest.mark.parametrize("sent", ["mine", "a" * 128, "018f3c1e-7b1a.5:_x"])
async def test_a_callers_id_is_kept(sent: str, gateway):
    answer = await gateway.client.get("/livez", headers={"x-request-id": sent})
    assert answer.headers["x-request-id"] == sent


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"a" * 129,
        b"a b",
        b"<script>alert(1)</script>",
        b"a\tb",
        b'{"a": 1}',
        b"../../etc/passwd",
        b"\xc3\xbc",
        b"\xff\xfe",
        b"a,b",
        b"%0d%0aset-cookie: a=b",
    ],
)
async def test_a_hostile_id_is_replaced(sent: bytes, gateway):
    answer = await gateway.client.post(
        "/score", content=b"no json", headers=[(b"x-request-id", sent)]
    )
    assert MADE_ID.fullmatch(answer.headers["x-request-id"])
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_line_break_in_an_id_does_not_reach_the_headers(gateway):
    messages = await called(gateway, [body(b"no json")], headers=[(b"x-request-id", b"a\r\nb: c")])
    headers = dict(messages[0]["headers"])
    assert MADE_ID.fullmatch(headers[b"x-request-id"].decode())


async def test_a_browser_is_told_not_to_guess_the_type(gateway):
    for answer in (await gateway.score(), await gateway.client.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_requests_are_counted_by_route_and_outcome(gateway):
    await gateway.score()
    await gateway.score()
    await gateway.client.post("/rubric", json=ASKED)
    await gateway.client.post("/score", content=b"no json")
    counted = gateway.count
    assert counted("proxy_grm_requests_total", route="/score", outcome="ok") == 2
    assert counted("proxy_grm_requests_total", route="/rubric", outcome="ok") == 1
    assert counted("proxy_grm_requests_total", route="/score", outcome="invalid_request") == 1


async def test_paths_that_a_client_makes_up_make_no_new_series(gateway):
    for number in range(20):
        await gateway.client.get(f"/made/up/{number}")
    routes = {
        sample.labels["route"]
        for family in gateway.metrics.registry.collect()
        if family.name == "proxy_grm_requests"
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value > 0
    }
    assert routes == {"unmatched"}


async def test_probes_and_scrapes_are_not_counted(gateway):
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await gateway.client.get(path)).status_code == 200
    text = (await gateway.client.get("/metrics")).text
    counted = [line for line in text.splitlines() if line.startswith("proxy_grm_requests_total{")]
    assert counted
    assert all(line.endswith(" 0.0") for line in counted)


async def test_what_fails_by_our_fault_is_counted_from_zero(gateway):
    text = (await gateway.client.get("/metrics")).text
    for route in ("/score", "/score/batch line"):
        for outcome in (
            "engine_unavailable",
            "store_unavailable",
            "deadline_exceeded",
            "overloaded",
        ):
            line = f'proxy_grm_requests_total{{outcome="{outcome}",route="{route}"}} 0.0'
            assert line in text.splitlines()


async def test_one_line_is_logged_for_a_request_and_carries_its_id(gateway):
    structlog.reset_defaults()  # a gateway of another folder's tests may still keep logs quiet
    processors = [structlog.contextvars.merge_contextvars]
    with structlog.testing.capture_logs(processors=processors) as logged:
        answer = await gateway.client.post("/score", json=ASKED, headers={"x-request-id": "mine"})
    assert answer.status_code == 200
    (line,) = [one for one in logged if one["event"] == "request"]
    assert line["request_id"] == "mine"
    assert (line["route"], line["status"], line["outcome"]) == ("/score", 200, "ok")
    assert line["seconds"] >= 0
    assert "One." not in json.dumps(logged)


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


async def called(
    gateway: Any,
    incoming: Iterable[dict[str, Any]],
    path: str = "/score",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> list[dict[str, Any]]:
    """Calls the application as a server would; after `incoming` the client says nothing more."""
    waiting = iter(incoming)
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        message = next(waiting, None)
        if message is None:
            await asyncio.sleep(60)
        assert message is not None
        return message

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8000),
    }
    await asyncio.wait_for(gateway.app(scope, receive, send), 30)
    return messages


@pytest.mark.parametrize("path", ["/score", "/rubric", "/score/batch"])
async def test_a_client_that_leaves_in_the_middle_of_its_upload_is_no_error_of_ours(
    path: str, gateway
):
    leaving = [body(b'{"question": ', more=True), {"type": "http.disconnect"}]
    with structlog.testing.capture_logs() as logged:
        await called(gateway, leaving, path)
    assert [one for one in logged if one["log_level"] == "error"] == []
    assert gateway.count("proxy_grm_requests_total", route=path, outcome="cancelled") == 1
    assert (await gateway.score()).status_code == 200


async def test_a_client_that_leaves_while_its_comparison_is_judged_is_counted_as_cancelled(
    start_gateway,
):
    gateway = await start_gateway(seconds=60)
    leaving = [body(json.dumps(ASKED).encode()), {"type": "http.disconnect"}]
    assert await called(gateway, leaving) == []
    assert (gateway.engine.running, gateway.count("proxy_grm_inflight")) == (0, 0)
    assert gateway.count("proxy_grm_requests_total", route="/score", outcome="cancelled") == 1
