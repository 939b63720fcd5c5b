from __future__ import annotations

import json

import httpx
import pytest

from service.jobs.asking import Asking, Refusal
from service.jobs.chunks import Line
from service.jobs.leases import Result
from service.settings import WorkerSettings

pytestmark = pytest.mark.anyio

JOB = "job_" + "0" * 32


async def asked(body: bytes, answer: httpx.Response) -> tuple[Result | Refusal, httpx.Request]:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer

    asking = Asking(WorkerSettings(gateway_url="http://gw/base"), httpx.MockTransport(handle))
    result = await asking.ask(JOB, Line(7, body))
    await asking.close()
    return result, seen[0]


async def test_a_line_is_sent_as_it_is_but_for_its_priority():
    body = b'{"id": "n", "question": "\\ud83d\\ude00 \\ud800", "timeout_s": 5, "deep": [1.5, null]}'
    ok = httpx.Response(200, json={"id": "n", "status": "ok"})
    result, request = await asked(body, ok)
    assert result == Result("ok", b'{"line":7,"id":"n","status":"ok"}')
    assert str(request.url) == "http://gw/base/score"
    assert json.loads(request.content) == {"priority": "batch"} | json.loads(body)
    assert request.headers["x-request-id"] == f"{JOB}:7"
    assert request.headers["x-proxy-grm-tenant"] == "default"
    assert "authorization" not in request.headers
    assert request.extensions["timeout"]["read"] == 35


@pytest.mark.parametrize(
    "body", [b"no json", b"[1]", b'"text"', b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"]
)
async def test_what_is_no_object_is_left_to_the_gateway_to_refuse(body: bytes):
    problem = {"code": "invalid_request", "status": 422}
    result, request = await asked(body, httpx.Response(422, json=problem))
    assert request.content == body
    assert isinstance(result, Result)
    assert json.loads(result.text) == {"line": 7, "id": None, "error": problem}


async def test_an_id_that_is_no_text_is_none():
    problem = {"code": "invalid_request", "status": 422}
    result, _ = await asked(b'{"id": "\\ud800"}', httpx.Response(422, json=problem))
    assert isinstance(result, Result)
    assert json.loads(result.text) == {"line": 7, "id": None, "error": problem}


@pytest.mark.parametrize("timeout_s", ["5", None, -1, 10**9, [1]])
async def test_a_senseless_time_limit_is_the_gateways_to_refuse(timeout_s: object):
    body = json.dumps({"timeout_s": timeout_s}).encode()
    _, request = await asked(body, httpx.Response(422, json={"code": "invalid_request"}))
    assert request.extensions["timeout"]["read"] == 150


async def test_a_gateway_says_when_it_wants_to_be_asked_again():
    answer = httpx.Response(429, json={"code": "overloaded"}, headers={"retry-after": "7"})
    result, _ = await asked(b"{}", answer)
    assert isinstance(result, Refusal)
    assert (result.retry_after_s, result.lines_own) == (7.0, False)
