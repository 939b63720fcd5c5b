"""Every bad request gets its own stable code and harms nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from PIL import Image
from proxy_grm_client.errors import BY_CODE

from service.api.errors import STATUSES, RequestInvalid, status_of
from service.engines import GenerationRequest
from service.errors import ServiceError

pytestmark = pytest.mark.anyio

GOOD: dict[str, Any] = {"question": "Which?", "responses": ["One.", "Two."], "cache": "bypass"}
TEN_MEGABYTES = 10 * 2**20


def kinds(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [found for child in kind.__subclasses__() for found in (child, *kinds(child))]


@pytest.mark.parametrize("kind", kinds())
def test_every_error_has_a_status_and_a_class_in_the_client(kind: type[ServiceError]):
    assert any(issubclass(kind, known) for known in STATUSES)
    assert kind.code in BY_CODE


def test_the_statuses_are_the_ones_of_the_contract():
    assert {kind.code: status for kind, status in STATUSES.items()} == {
        "invalid_request": 422,
        "image_rejected": 422,
        "context_exceeded": 422,
        "payload_too_large": 413,
        "unauthenticated": 401,
        "rate_limited": 429,
        "not_found": 404,
        "release_changed": 409,
        "overloaded": 429,
        "draining": 503,
        "engine_unavailable": 503,
        "store_unavailable": 503,
        "deadline_exceeded": 504,
        "abstained": 503,
    }


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind is not RequestInvalid])
def test_the_client_tries_again_exactly_where_the_service_says_when(kind: type[ServiceError]):
    error = kind("detail")
    assert BY_CODE[kind.code].worth_retrying is (error.retry_after_s is not None)
    assert status_of(error) in {401, 404, 409, 413, 422, 429, 503, 504}


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document of this code, and nothing in it is not for a client."""
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    retry_after_s = problem.get("retry_after_s")
    assert answer.headers.get("retry-after") == (retry_after_s and str(retry_after_s))
    assert set(problem) - {"errors", "retry_after_s"} == {
        "type",
        "title",
        "status",
        "detail",
        "code",
        "request_id",
    }
    assert problem["type"] == f"urn:proxy-grm:error:{code}"
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert len(answer.content) < 5000
    assert not re.search(
        r"Traceback|/home|/work|/tmp|\.py\b|0x[0-9a-f]{6}|PIL|pydantic", answer.text
    )
    return problem


async def assert_unharmed(gateway: Any) -> None:
    """A good request right after gets its judgement, and no place is lost."""
    assert (await gateway.client.post("/score", json=GOOD)).status_code == 200
    assert gateway.count("proxy_grm_inflight") == 0
    assert gateway.count("proxy_grm_queued") == 0


def deep(levels: int) -> bytes:
    return b'{"question": ' + b"[" * levels + b"]" * levels + b"}"


NO_GOOD_JSON = {
    "nothing": b"",
    "no json": b"Which is better?",
    "half a document": b'{"question": "Which?", "responses": ["One.", ',
    "two documents": json.dumps(GOOD).encode() * 2,
    "a list": json.dumps([GOOD]).encode(),
    "a text": b'"Which?"',
    "null": b"null",
    "single quotes": b"{'question': 'Which?'}",
    "invalid utf-8": b'{"question": "\xff\xfe", "responses": ["One.", "Two."]}',
    "utf-16": json.dumps(GOOD).encode("utf-16"),
    "a lone surrogate": b'{"question": "\\ud800", "responses": ["One.", "Two."]}',
    "a lone surrogate as bytes": b'{"question": "\xed\xa0\x80", "responses": ["One.", "Two."]}',
    "a bare nan": json.dumps(GOOD)[:-1].encode() + b', "temperature": NaN}',
    "an infinite timeout": json.dumps(GOOD)[:-1].encode() + b', "timeout_s": Infinity}',
    "a timeout beyond all numbers": json.dumps(GOOD)[:-1].encode() + b', "timeout_s": 1e999}',
    "a number of 10000 digits": b'{"seed": ' + b"9" * 10_000 + b"}",
    "100000 levels": deep(100_000),
    "300 levels": deep(300),
    "a control character": b'{"question": "\x00", "responses": ["One.", "Two."]}',
}


@pytest.mark.parametrize("name", list(NO_GOOD_JSON))
@pytest.mark.parametrize("path", ["/score", "/rubric"])
async def test_what_is_no_good_json_is_an_invalid_request(name: str, path: str, shared_gateway):
    answer = await shared_gateway.client.post(path, content=NO_GOOD_JSON[name])
    problem = assert_problem(answer, 422, "invalid_request")
    assert "retry-after" not in answer.headers
    assert len(problem["errors"]) >= 1
    await assert_unharmed(shared_gateway)


WRONG_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"answer": "x"}, "answer"),
    "a video": ({"video": {"data": "AAAA"}}, "video"),
    "videos": ({"videos": []}, "videos"),
    "a video among the images": ({"images": [{"video": "AAAA"}]}, "images.0.video"),
    "one response": ({"responses": ["One."]}, "responses.1"),
    "no response": ({"responses": []}, "responses.0"),
    "three responses": ({"responses": ["One.", "Two.", "Three."]}, "responses"),
    "an empty response": ({"responses": ["One.", ""]}, "responses.1"),
    "a blank response": ({"responses": [" \n\t\u00a0", "Two."]}, "responses.0"),
    "responses as a text": ({"responses": "One. Two."}, "responses"),
    "responses as numbers": ({"responses": [1, 2]}, "responses.0"),
    "responses by name": ({"responses": {"a": "One.", "b": "Two."}}, "responses"),
    "a null response": ({"responses": ["One.", None]}, "responses.1"),
    "no question": ({"question": None}, "question"),
    "a question as a number": ({"question": 5}, "question"),
    "a question as messages": ({"question": [{"role": "user"}]}, "question"),
    "images as a text": ({"images": "AAAA"}, "images"),
    "an image as a text": ({"images": ["AAAA"]}, "images.0"),
    "an image without data": ({"images": [{}]}, "images.0"),
    "an image of nothing": ({"images": [{"data": ""}]}, "images.0.data"),
    "an image as bytes of numbers": ({"images": [{"data": [255, 216]}]}, "images.0.data"),
    "an unknown field in an image": ({"images": [{"data": "A", "kind": "x"}]}, "images.0.kind"),
    "null images": ({"images": None}, "images"),
    "an empty id": ({"id": ""}, "id"),
    "an id of 129 characters": ({"id": "x" * 129}, "id"),
    "an id as a number": ({"id": 7}, "id"),
    "another depth": ({"depth": "deep"}, "depth"),
    "another order": ({"order": "random"}, "order"),
    "no votes": ({"votes": 0, "temperature": 1}, "votes"),
    "17 votes": ({"votes": 17, "temperature": 1}, "votes"),
    "votes that cannot differ": ({"votes": 2}, ""),
    "half a vote": ({"votes": 1.5, "temperature": 1}, "votes"),
    "votes as a text": ({"votes": "2", "temperature": 1}, "votes"),
    "true votes": ({"votes": True, "temperature": 1}, "votes"),
    "a temperature below 0": ({"temperature": -0.1}, "temperature"),
    "a temperature above 2": ({"temperature": 2.1}, "temperature"),
    "a seed below 0": ({"seed": -1}, "seed"),
    "a seed beyond 32 bits": ({"seed": 2**32}, "seed"),
    "a seed beyond all bits": ({"seed": 10**300}, "seed"),
    "a seed as a float": ({"seed": 1.0}, "seed"),
    "no time": ({"timeout_s": 0}, "timeout_s"),
    "a negative time": ({"timeout_s": -1}, "timeout_s"),
    "more than an hour": ({"timeout_s": 3601}, "timeout_s"),
    "a time as a text": ({"timeout_s": "60"}, "timeout_s"),
    "consistency as a text": ({"require_consistent": "yes"}, "require_consistent"),
    "another priority": ({"priority": "urgent"}, "priority"),
    "another cache": ({"cache": "never"}, "cache"),
    "an empty rubric": ({"rubric": {}}, "rubric"),
    "a blank rubric": ({"rubric": {"text": " \n "}}, "rubric.text"),
    "a rubric twice": ({"rubric": {"text": "x", "id": "rub_" + "0" * 24}}, "rubric"),
    "a rubric as a text": ({"rubric": "1. Truth (100%)"}, "rubric"),
    "a rubric's id of another form": ({"rubric": {"id": "rub_1"}}, "rubric.id"),
    "evaluators as a text": ({"evaluators": "proxy"}, "evaluators"),
    "an evaluator without a name": ({"evaluators": [""]}, "evaluators.0"),
    "an empty run": ({"run_id": ""}, "run_id"),
}


@pytest.mark.parametrize("name", list(WRONG_FIELDS))
async def test_a_wrong_field_is_an_invalid_request_that_names_it(name: str, shared_gateway):
    wrong, field = WRONG_FIELDS[name]
    answer = await shared_gateway.client.post("/score", json=GOOD | wrong)
    problem = assert_problem(answer, 422, "invalid_request")
    assert field in [error["field"] for error in problem["errors"]]
    assert problem["detail"].startswith(problem["errors"][0]["field"])
    await assert_unharmed(shared_gateway)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"responses": ["x", " "]}, "must not be blank"),
        ({"responses": ["x", "y", "z"]}, "at most 2 are possible, these are 3"),
        ({"responses": ["x"]}, "this is required"),
        ({"rubric": {"id": "nope"}}, "an id looks like rub_ and 24 hex digits"),
        ({"images": [{"sha256": "nope"}]}, "a sha256 is 64 hex digits, in lower case"),
        ({"evaluators": [f"e{n}" for n in range(17)]}, "at most 16 are possible, these are 17"),
    ],
)
async def test_what_is_wrong_is_said_in_words_of_its_own(
    wrong: dict[str, Any], problem: str, shared_gateway
):
    answer = await shared_gateway.client.post("/score", json=GOOD | wrong)
    assert problem in [error["problem"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"label": 3}, "label"),
        ({"label": "1"}, "label"),
        ({"label": True}, "label"),
        ({"rubric": {"text": "x"}}, "rubric"),
        ({"depth": "full"}, "depth"),
        ({"responses": ["One."]}, "responses.1"),
    ],
)
async def test_a_wrong_field_of_a_rubric_request_is_named_too(
    wrong: dict[str, Any], field: str, shared_gateway
):
    asked = {"question": "Which?", "responses": ["One.", "Two."]}
    answer = await shared_gateway.client.post("/rubric", json=asked | wrong)
    problem = assert_problem(answer, 422, "invalid_request")
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("missing", ["question", "responses"])
async def test_a_missing_field_is_named(missing: str, shared_gateway):
    asked = {name: value for name, value in GOOD.items() if name != missing}
    answer = await shared_gateway.client.post("/score", json=asked)
    problem = assert_problem(answer, 422, "invalid_request")
    assert [error["field"] for error in problem["errors"]] == [missing]


MARK = "Zebrafink"
ECHOING: list[dict[str, Any]] = [
    {"depth": MARK},
    {"question": [MARK]},
    {"responses": [MARK]},
    {"responses": [MARK, MARK, MARK]},
    {"images": [{"data": [MARK]}]},
    {"images": [{"data": MARK + "!"}]},
    {"rubric": {"id": MARK}},
    {"answer": MARK},
    {"timeout_s": MARK},
    {"evaluators": [MARK]},
]


@pytest.mark.parametrize("wrong", ECHOING)
async def test_what_was_sent_is_never_sent_back(wrong: dict[str, Any], shared_gateway):
    answer = await shared_gateway.client.post("/score", json=GOOD | wrong)
    assert answer.status_code in (404, 422)
    assert MARK not in answer.text


async def test_a_request_wrong_in_thousands_of_ways_gets_a_short_answer(shared_gateway):
    asked = GOOD | {f"field {n}": MARK for n in range(50_000)}
    answer = await shared_gateway.client.post("/score", json=asked)
    problem = assert_problem(answer, 422, "invalid_request")
    assert len(problem["errors"]) == 10
    assert problem["detail"].endswith("(and 49999 more)")
    await assert_unharmed(shared_gateway)


async def test_the_name_of_an_unknown_field_is_cut(shared_gateway):
    answer = await shared_gateway.client.post("/score", json=GOOD | {"x" * 100_000: 1})
    problem = assert_problem(answer, 422, "invalid_request")
    assert problem["errors"][0]["field"] == "x" * 120


@pytest.mark.parametrize(
    "wrong",
    [
        {"responses": ["x" * TEN_MEGABYTES, "Two."]},
        {"question": "x" * TEN_MEGABYTES},
        {"rubric": {"text": "x" * TEN_MEGABYTES}},
        {"responses": ["One.", "ü" * 1_000_001]},
    ],
    ids=["response", "question", "rubric", "one character too many"],
)
async def test_a_text_of_ten_megabytes_is_too_large(wrong: dict[str, Any], shared_gateway):
    answer = await shared_gateway.client.post("/score", json=GOOD | wrong)
    problem = assert_problem(answer, 413, "payload_too_large")
    assert problem["detail"].endswith("at most 1000000 are read")
    await assert_unharmed(shared_gateway)


async def test_a_text_just_inside_the_limit_is_judged(shared_gateway):
    asked = GOOD | {"responses": ["ü" * 1_000_000, "Two."]}
    assert (await shared_gateway.client.post("/score", json=asked)).status_code == 200


@pytest.mark.parametrize("path", ["/score", "/rubric"])
async def test_a_body_over_the_limit_is_too_large_announced_or_not(path: str, start_gateway):
    gateway = await start_gateway(limits={"body_bytes": 2000}, listening=True)
    body = json.dumps(GOOD | {"question": "x" * 2000}).encode()

    async def unannounced() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    announced = await gateway.client.post(path, content=body)
    assert_problem(announced, 413, "payload_too_large")
    chunked = await gateway.client.post(path, content=unannounced())
    assert_problem(chunked, 413, "payload_too_large")
    assert gateway.engine.requests == []
    await assert_unharmed(gateway)


async def test_a_body_of_exactly_the_limit_is_read(start_gateway):
    body = json.dumps(GOOD).encode()
    body = body[:-1] + b" " * (2000 - len(body)) + b"}"
    gateway = await start_gateway(limits={"body_bytes": len(body)})
    assert (await gateway.client.post("/score", content=body)).status_code == 200
    assert (await gateway.client.post("/score", content=body + b" ")).status_code == 413


def png(width: int, height: int) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (width, height)).save(made, "PNG")
    return made.getvalue()


def claims_30000_by_30000() -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        size, check = len(content), zlib.crc32(name + content)
        return struct.pack(">I", size) + name + content + struct.pack(">I", check)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def saved(form: str, frames: int = 1) -> bytes:
    made = io.BytesIO()
    pictures = [Image.new("RGB", (64, 64), (n * 100, 0, 0)) for n in range(frames)]
    options: dict[str, Any] = {"save_all": True, "append_images": pictures[1:]}
    pictures[0].save(made, form, **(options if frames > 1 else {}))
    return made.getvalue()


BAD_PICTURES: dict[str, bytes] = {
    "a truncated jpeg": saved("JPEG")[:300],
    "one pixel": png(1, 1),
    "a claim of 30000 x 30000": claims_30000_by_30000(),
    "a gif": saved("GIF"),
    "an svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    "a text": b"this is a cat",
    "an animated webp": saved("WEBP", 2),
    "an animated png": saved("PNG", 2),
    "a pdf": b"%PDF-1.7\n",
}


@pytest.mark.parametrize("name", list(BAD_PICTURES))
@pytest.mark.parametrize("path", ["/score", "/rubric"])
async def test_a_bad_picture_is_rejected_and_the_next_request_is_judged(
    name: str, path: str, shared_gateway, picture: Callable[..., dict[str, str]]
):
    bad = {"data": "data:image/png;base64," + base64.b64encode(BAD_PICTURES[name]).decode()}
    asked = {"question": "Which?", "responses": ["One.", "Two."], "images": [picture(), bad]}
    answer = await shared_gateway.client.post(path, json=asked)
    assert_problem(answer, 422, "image_rejected")
    assert "retry-after" not in answer.headers
    good = GOOD | {"images": [picture()]}
    assert (await shared_gateway.client.post("/score", json=good)).status_code == 200
    await assert_unharmed(shared_gateway)


@pytest.mark.parametrize("garbage", ["no base64!", "data:image/png;base64,####", "/etc/passwd"])
async def test_garbage_instead_of_base64_is_a_rejected_picture(garbage: str, shared_gateway):
    asked = GOOD | {"images": [{"data": garbage}]}
    assert_problem(await shared_gateway.client.post("/score", json=asked), 422, "image_rejected")
    await assert_unharmed(shared_gateway)


async def test_several_bad_pictures_are_one_rejection(shared_gateway):
    bad = [{"data": base64.b64encode(BAD_PICTURES["a gif"]).decode()}, {"data": "!"}] * 2
    answer = await shared_gateway.client.post("/score", json=GOOD | {"images": bad})
    assert_problem(answer, 422, "image_rejected")
    await assert_unharmed(shared_gateway)


async def test_more_pictures_than_the_release_takes_are_refused_unseen(
    shared_gateway, picture: Callable[..., dict[str, str]]
):
    for count in (5, 64):
        answer = await shared_gateway.client.post(
            "/score", json=GOOD | {"images": [picture()] * count}
        )
        problem = assert_problem(answer, 422, "invalid_request")
        assert problem["detail"] == f"{count} images; this release takes at most 4"
    four = GOOD | {"images": [picture()] * 4}
    assert (await shared_gateway.client.post("/score", json=four)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/scores"), ("PUT", "/score/1"), ("GET", "/score//")]
)
async def test_an_unknown_path_is_not_found(method: str, path: str, shared_gateway):
    answer = await shared_gateway.client.request(method, path)
    assert_problem(answer, 404, "not_found")


async def test_a_method_that_is_not_answered_names_the_one_that_is(shared_gateway):
    answer = await shared_gateway.client.get("/score")
    assert_problem(answer, 404, "not_found")
    assert answer.headers["allow"] == "POST"


async def test_what_nobody_foresaw_is_a_503_without_its_details(start_gateway):
    surprises: list[Exception] = [RuntimeError(f"{MARK} at 0x7f0000000000")]

    def script(_: GenerationRequest) -> str:
        if surprises:
            raise surprises.pop()
        return "<rubric>\n1. Truth (100%)\n</rubric>"

    gateway = await start_gateway(script)
    answer = await gateway.client.post("/score", json=GOOD, headers={"x-request-id": "mine"})
    assert answer.json()["code"] == "engine_unavailable"
    assert MARK not in answer.text
    assert answer.headers["x-request-id"] == "mine"
    assert_problem(answer, 503, "engine_unavailable")
    assert answer.headers["retry-after"] == "5"
    failed = {"route": "/score", "outcome": "engine_unavailable"}
    assert gateway.count("proxy_grm_requests_total", **failed) == 1
    await assert_unharmed(gateway)


@pytest.mark.parametrize("path", ["/score", "/rubric", "/score/batch"])
async def test_a_draining_gateway_takes_nothing_new(path: str, gateway):
    gateway.parts.admission.draining = True
    asked = {"question": "Which?", "responses": ["One.", "Two."]}
    answer = await gateway.client.post(path, json=asked)
    assert_problem(answer, 503, "draining")
    assert answer.headers["retry-after"] == "5"
    assert gateway.engine.requests == []


async def test_every_error_is_counted_by_its_code(gateway):
    await gateway.client.post("/score", content=b"no json")
    await gateway.score(responses=["x" * 1_000_001, "Two."])
    await gateway.score(rubric={"id": "rub_" + "0" * 24})
    await gateway.client.get("/nowhere")
    for route, outcome in (
        ("/score", "invalid_request"),
        ("/score", "payload_too_large"),
        ("/score", "not_found"),
        ("unmatched", "not_found"),
    ):
        counted = {"route": route, "outcome": outcome}
        assert gateway.count("proxy_grm_requests_total", **counted) == 1
