from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.engines import GenerationRequest
from service.engines.scripted import written_by_rote
from service.errors import ContextExceeded

pytestmark = pytest.mark.anyio


def line(number: int, **changes: Any) -> dict[str, Any]:
    asked = {"id": f"n{number}", "question": f"question {number}", "responses": ["One.", "Two."]}
    return asked | changes


def ndjson(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def sent(gateway: Any, content: bytes) -> list[dict[str, Any]]:
    """Answers of a batch that must be accepted."""
    answer = await gateway.client.post("/score/batch", content=content, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.content == b"" or answer.content.endswith(b"\n")
    return [json.loads(one) for one in answer.content.splitlines()]


def asked_number(request: GenerationRequest) -> int:
    text = "".join(part for part in request.prompt.user if isinstance(part, str))
    return int(re.findall(r"question (\d+)", text)[0])


async def test_a_bad_line_among_a_thousand_good_ones_costs_that_line_alone(gateway):
    lines = [line(n) for n in range(1000)]
    body = ndjson(*lines[:500]) + b'{"id": "bad", "question": \n' + ndjson(*lines[500:])
    answers = await sent(gateway, body)
    assert len(answers) == 1001
    (error,) = [answer for answer in answers if "error" in answer]
    assert error["line"] == 501
    assert error["error"]["code"] == "invalid_request"
    assert error["error"]["status"] == 422
    judged = [answer for answer in answers if "error" not in answer]
    assert sorted(answer["id"] for answer in judged) == sorted(one["id"] for one in lines)
    assert {answer["status"] for answer in judged} == {"ok"}
    counted = {"route": "/score/batch line"}
    assert gateway.count("proxy_grm_requests_total", **counted, outcome="ok") == 1000
    assert gateway.count("proxy_grm_requests_total", **counted, outcome="invalid_request") == 1
    assert gateway.count("proxy_grm_requests_total", route="/score/batch", outcome="ok") == 1
    assert gateway.count("proxy_grm_inflight") == 0


async def test_a_line_is_answered_as_the_same_request_alone_would_be(gateway):
    alone = (await gateway.client.post("/score", json=line(1, order="both"))).json()
    (in_batch,) = await sent(gateway, ndjson(line(1, order="both", cache="bypass")))
    for changing in ("timing", "cached"):
        alone.pop(changing)
        in_batch.pop(changing)
    assert in_batch == alone


async def test_answers_come_as_they_are_finished_and_not_in_the_order_of_the_lines(
    start_gateway, until
):
    gateway = await start_gateway(admission={"running": 1})
    lines = [line(n, priority="batch") for n in range(5)] + [line(9, priority="interactive")]
    async with gateway.parts.admission.lease("interactive"):
        batch = asyncio.create_task(sent(gateway, ndjson(*lines)))
        await until(lambda: gateway.count("proxy_grm_queued") == 6)
    answers = await batch
    order = [asked_number(request) for request in gateway.engine.requests]
    assert order == [9, 0, 1, 2, 3, 4]
    assert [answer["id"] for answer in answers] == [f"n{number}" for number in order]


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"", []),
        (b"\n\n \n\t\r\n", []),
        (ndjson(line(1))[:-1], ["n1"]),
        (ndjson(line(1)) + b"\n\n" + ndjson(line(2)), ["n1", "n2"]),
        (ndjson(line(1)).replace(b"\n", b"\r\n") * 2, ["n1", "n1"]),
        (b"  " + ndjson(line(1)), ["n1"]),
        (b"\xef\xbb\xbf" + ndjson(line(1)), ["n1"]),
    ],
    ids=[
        "nothing",
        "blank lines alone",
        "no newline at the end",
        "blank lines between",
        "crlf",
        "indented",
        "a byte order mark",
    ],
)
async def test_blank_lines_and_a_missing_last_newline_do_no_harm(
    content: bytes, ids: list[str], gateway
):
    answers = await sent(gateway, content)
    assert sorted(answer["id"] for answer in answers) == ids


async def test_blank_lines_count_for_the_number_of_a_bad_line(gateway):
    answers = await sent(gateway, b"\n\n" + ndjson(line(1)) + b"\nno json")
    assert [answer["line"] for answer in answers if "error" in answer] == [5]


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "no json": (b"Which?", "invalid_request"),
    "invalid utf-8": (b'{"question": "\xff"}', "invalid_request"),
    "a lone surrogate": (b'{"question": "\\udc00", "responses": ["a", "b"]}', "invalid_request"),
    "an id that is no text": (b'{"id": "\\ud800", "bad": 1}', "invalid_request"),
    "a list": (b"[]", "invalid_request"),
    "a number of 10000 digits": (b"9" * 10_000, "invalid_request"),
    "100000 levels": (b"[" * 100_000, "invalid_request"),
    "an unknown field": (ndjson(line(7, video="x")).strip(), "invalid_request"),
    "one response": (ndjson(line(7, responses=["One."])).strip(), "invalid_request"),
    "an unknown rubric": (
        ndjson(line(7, rubric={"id": "rub_" + "0" * 24})).strip(),
        "not_found",
    ),
    "an evaluator": (ndjson(line(7, evaluators=["proxy"])).strip(), "not_found"),
    "too long a text": (ndjson(line(7, question="x" * 1_000_001)).strip(), "payload_too_large"),
    "five pictures": (ndjson(line(7, images=[{"data": "A"}] * 5)).strip(), "invalid_request"),
    "too short a time": (ndjson(line(7, timeout_s=1e-9)).strip(), "deadline_exceeded"),
}


@pytest.mark.parametrize("name", list(BAD_LINES))
async def test_a_bad_line_gets_its_own_error_between_good_ones(name: str, gateway):
    bad, code = BAD_LINES[name]
    answers = await sent(gateway, ndjson(line(1)) + bad + b"\n" + ndjson(line(2)))
    assert len(answers) == 3
    (error,) = [answer for answer in answers if "error" in answer]
    assert set(error) == {"id", "line", "error"}
    assert error["line"] == 2
    assert error["error"]["code"] == code
    assert error["id"] == ("n7" if b'"n7"' in bad else None)
    assert re.fullmatch(r"req_[0-9a-f]{32}", error["error"]["request_id"])
    assert sorted(answer["id"] for answer in answers if "error" not in answer) == ["n1", "n2"]


async def test_a_line_error_carries_the_requests_own_id(gateway):
    answer = await gateway.client.post(
        "/score/batch", content=b"no json\n", headers={"x-request-id": "mine"}
    )
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"] == "mine"


async def test_a_bad_picture_in_a_line_is_that_lines_error(gateway, picture):
    gif = {"data": base64.b64encode(b"GIF89a" + bytes(50)).decode()}
    answers = await sent(
        gateway, ndjson(line(1, images=[picture()]), line(2, images=[picture(), gif]), line(3))
    )
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id["n2"]["error"]["code"] == "image_rejected"
    assert by_id["n1"]["status"] == by_id["n3"]["status"] == "ok"


async def test_a_line_that_is_too_long_is_skipped_to_its_end(start_gateway):
    gateway = await start_gateway(limits={"body_bytes": 3000})
    long = ndjson(line(7, question="x" * 5_000_000))
    answers = await sent(gateway, ndjson(line(1)) + long + ndjson(line(2)) + long.strip())
    errors = [(a["line"], a["error"]["code"]) for a in answers if "error" in a]
    assert sorted(errors) == [(2, "payload_too_large"), (4, "payload_too_large")]
    assert sorted(a["id"] for a in answers if "error" not in a) == ["n1", "n2"]


async def test_an_upload_over_the_limit_is_too_large(start_gateway):
    gateway = await start_gateway(limits={"batch_bytes": 5000}, listening=True)

    async def unannounced() -> AsyncIterator[bytes]:
        for number in range(100):
            yield ndjson(line(number))

    for content in (ndjson(*(line(n) for n in range(100))), unannounced()):
        answer = await gateway.client.post("/score/batch", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert gateway.engine.requests == []
    assert len(await sent(gateway, ndjson(line(1)))) == 1


async def test_an_upload_that_does_not_fit_in_memory_is_judged_all_the_same(gateway):
    padding = "x" * 400_000
    answers = await sent(gateway, ndjson(*(line(n, question=padding + str(n)) for n in range(15))))
    assert sorted(answer["id"] for answer in answers) == sorted(f"n{n}" for n in range(15))


async def test_an_engines_error_and_a_surprise_cost_their_lines_alone(start_gateway):
    def script(request: GenerationRequest) -> str:
        if asked_number(request) == 1:
            raise ContextExceeded("too long")
        if asked_number(request) == 2:
            raise RuntimeError("a secret at 0x7f0000000000")
        return "hm" if asked_number(request) == 3 else written_by_rote(request)

    gateway = await start_gateway(script)
    answers = await sent(gateway, ndjson(*(line(n) for n in range(5))))
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id["n1"]["error"]["code"] == "context_exceeded"
    assert by_id["n2"]["error"]["code"] == "engine_unavailable"
    assert "secret" not in json.dumps(by_id["n2"])
    assert (by_id["n3"]["status"], by_id["n3"]["preferred"]) == ("abstain", None)
    assert by_id["n0"]["status"] == by_id["n4"]["status"] == "ok"
    assert gateway.count("proxy_grm_abstentions_total", reason="unreadable") == 1


async def test_no_more_lines_are_in_work_than_the_settings_allow(start_gateway):
    most = 0

    def script(request: GenerationRequest) -> str:
        nonlocal most
        most = max(most, gateway.engine.running)
        return written_by_rote(request)

    gateway = await start_gateway(script, seconds=0.01, limits={"batch_in_work": 4})
    assert len(await sent(gateway, ndjson(*(line(n) for n in range(40))))) == 40
    assert 2 <= most <= 4


async def test_lines_without_an_id_get_one_each(gateway):
    asked = {"question": "Which?", "responses": ["One.", "Two."]}
    ids = [answer["id"] for answer in await sent(gateway, ndjson(asked, asked, asked))]
    assert len(set(ids)) == 3


async def test_a_client_that_hangs_up_at_once_stops_its_lines_in_the_engine(start_gateway, until):
    gateway = await start_gateway(seconds=60, listening=True, limits={"batch_in_work": 5})
    body = ndjson(*(line(n) for n in range(100)))
    asking = asyncio.create_task(gateway.client.post("/score/batch", content=body))
    await until(lambda: gateway.engine.running == 5)
    asking.cancel()
    await until(lambda: gateway.engine.cancelled == 5)
    assert (gateway.engine.running, len(gateway.engine.requests)) == (0, 5)
    await until(lambda: gateway.count("proxy_grm_inflight") == 0)


async def test_a_client_that_hangs_up_midway_stops_the_rest(start_gateway):
    gateway = await start_gateway(seconds=0.05, listening=True, limits={"batch_in_work": 3})
    body = ndjson(*(line(n) for n in range(1000)))
    async with gateway.client.stream("POST", "/score/batch", content=body) as answer:
        async for one in answer.aiter_lines():
            assert json.loads(one)["status"] == "ok"
            break
    begun = -1
    while begun != len(gateway.engine.requests):  # between two lines nothing runs for a moment
        begun = len(gateway.engine.requests)
        await asyncio.sleep(0.3)
    assert begun < 100
    assert (gateway.engine.running, gateway.count("proxy_grm_inflight")) == (0, 0)
    assert (await gateway.client.post("/score", json=line(1))).status_code == 200


async def test_the_first_answer_comes_before_the_last_line_is_judged(start_gateway):
    gateway = await start_gateway(seconds=0.05, listening=True, limits={"batch_in_work": 2})
    body = ndjson(*(line(n) for n in range(20)))
    async with gateway.client.stream("POST", "/score/batch", content=body) as answer:
        begun = [len(gateway.engine.requests) async for _ in answer.aiter_lines()]
    assert len(begun) == 20
    assert begun[0] < 20


async def test_a_slow_reader_loses_no_answer(start_gateway):
    gateway = await start_gateway(listening=True, limits={"batch_in_work": 8})
    body = ndjson(*(line(n) for n in range(200)))
    ids: list[str] = []
    async with gateway.client.stream("POST", "/score/batch", content=body) as answer:
        async for one in answer.aiter_lines():
            ids.append(json.loads(one)["id"])
            if len(ids) < 20:
                await asyncio.sleep(0.005)
    assert sorted(ids) == sorted(f"n{n}" for n in range(200))


async def test_who_reads_nothing_gives_the_place_back_and_stops_the_rest(start_gateway, until):
    gateway = await start_gateway(
        listening=True, limits={"batch_in_work": 3, "body_s": 0.5}, admission={"uploads": 1}
    )
    long = {"text": "1. Right (100%): " + "word " * 100_000}
    body = ndjson(*(line(n, rubric=long) for n in range(40)))
    head = f"POST /score/batch HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    url = gateway.client.base_url
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.connect((url.host, url.port))
        await asyncio.to_thread(asking.sendall, head.encode() + body)
        await until(lambda: gateway.parts.bodies.uploads == 1)
        await until(lambda: gateway.parts.bodies.uploads == 0, 60)
    assert len(gateway.engine.requests) < 40
    assert (gateway.engine.running, gateway.count("proxy_grm_inflight")) == (0, 0)
    assert len(await sent(gateway, ndjson(line(1)))) == 1


async def test_lines_that_wait_give_way_to_a_single_request(start_gateway, until):
    gateway = await start_gateway(admission={"running": 1, "waiting": 100})
    async with gateway.parts.admission.lease("interactive"):
        batch = asyncio.create_task(sent(gateway, ndjson(*(line(n) for n in range(20)))))
        await until(lambda: gateway.count("proxy_grm_queued") == 20)
        alone = asyncio.create_task(gateway.client.post("/score", json=line(77)))
        await until(lambda: gateway.count("proxy_grm_queued") == 21)
    assert (await alone).status_code == 200
    assert len(await batch) == 20
    order = [asked_number(request) for request in gateway.engine.requests]
    assert order == [77, *range(20)]


async def test_lines_begun_before_draining_are_finished_and_later_ones_told(start_gateway, until):
    gateway = await start_gateway(seconds=0.4, limits={"batch_in_work": 2})
    batch = asyncio.create_task(sent(gateway, ndjson(*(line(n) for n in range(6)))))
    await until(lambda: gateway.engine.running == 2)
    gateway.parts.admission.draining = True
    answers = await batch
    assert sorted(a["id"] for a in answers if "error" not in a) == ["n0", "n1"]
    assert {a["error"]["code"] for a in answers if "error" in a} == {"draining"}
    assert sorted(a["id"] for a in answers if "error" in a) == ["n2", "n3", "n4", "n5"]
    assert {a["error"]["retry_after_s"] for a in answers if "error" in a} == {5}
