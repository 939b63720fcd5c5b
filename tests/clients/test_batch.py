from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from proxy_grm_client import (
    AsyncClient,
    Client,
    EngineUnavailable,
    FailedLine,
    ImageRejected,
    InvalidRequest,
    Judgement,
    ServiceUnreachable,
    UnexpectedAnswer,
)

QUESTION = {"question": "Which?", "responses": ["One.", "Two."]}


def lines(number: int) -> list[dict[str, Any]]:
    return [QUESTION | {"id": f"line-{place}"} for place in range(1, number + 1)]


class Service:
    """Answers uploads, each in the way that is next on the list, and remembers them."""

    def __init__(self, judgement: dict[str, Any], *ways: Callable[..., Any]) -> None:
        self._judgement = judgement
        self._ways = list(ways) or [self.every]
        self.uploads: list[list[dict[str, Any]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("POST", "/score/batch")
        assert request.headers["content-type"] == "application/x-ndjson"
        sent = [json.loads(line) for line in request.read().splitlines()]
        self.uploads.append(sent)
        way = self._ways.pop(0) if len(self._ways) > 1 else self._ways[0]
        answer = way(sent)
        return answer if isinstance(answer, httpx.Response) else self.stream(answer)

    def stream(self, answers: Iterable[dict[str, Any]]) -> httpx.Response:
        body = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers).encode()
        return httpx.Response(200, content=body)

    def ids(self) -> list[list[str]]:
        return [[line["id"] for line in upload] for upload in self.uploads]

    def answer(self, line: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return self._judgement | {"id": line["id"]} | changes

    def every(self, sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.answer(line) for line in reversed(sent)]


def refusal(line: dict[str, Any], place: int, code: str) -> dict[str, Any]:
    problem = {"code": code, "detail": f"this is {code}", "request_id": "req_7"}
    return {"id": line["id"], "line": place, "error": problem}


@pytest.fixture(params=["waiting", "awaiting"])
def run(request: pytest.FixtureRequest) -> Callable[..., list[Any]]:
    """A batch's results, from the client that waits and from the one that is awaited."""

    def waiting(service: Callable[..., Any], batch: Any, **options: Any) -> list[Any]:
        with Client("http://grm", transport=httpx.MockTransport(service)) as client:
            return list(client.batch(batch, **options))

    def awaiting(service: Callable[..., Any], batch: Any, **options: Any) -> list[Any]:
        async def collected() -> list[Any]:
            transport = httpx.MockTransport(service)
            async with AsyncClient("http://grm", transport=transport) as client:
                return [result async for result in client.batch(batch, **options)]

        return asyncio.run(collected())

    return waiting if request.param == "waiting" else awaiting


def test_each_line_has_one_result_in_the_order_in_which_they_finish(run, judgement):
    service = Service(judgement)
    results = run(service, lines(3))
    assert [result.id for result in results] == ["line-3", "line-2", "line-1"]
    assert all(isinstance(result, Judgement) for result in results)
    assert service.ids() == [["line-1", "line-2", "line-3"]]


def test_nothing_is_sent_of_an_empty_batch(run, judgement):
    service = Service(judgement)
    assert run(service, []) == []
    assert service.uploads == []


def test_options_are_of_every_line_that_does_not_say_otherwise(run, judgement):
    service = Service(judgement)
    batch = [QUESTION | {"id": "a"}, QUESTION | {"id": "b", "order": "given", "images": [b"x"]}]
    run(service, batch, order="both", rubric="1. Truth (100%)", timeout_s=7)
    shared = QUESTION | {"rubric": {"text": "1. Truth (100%)"}, "timeout_s": 7}
    assert service.uploads == [
        [
            shared | {"id": "a", "order": "both", "images": []},
            shared | {"id": "b", "order": "given", "images": [{"data": "eA=="}]},
        ]
    ]


def test_lines_without_an_id_and_with_the_same_one_are_told_apart(run, judgement):
    service = Service(judgement)
    results = run(service, [QUESTION, QUESTION, QUESTION | {"id": "a"}, QUESTION | {"id": "a"}])
    [sent] = service.ids()
    assert len(set(sent)) == 4
    assert sorted(result.id for result in results)[:2] == ["a", "a"]


def test_a_line_that_cannot_be_sent_costs_itself_alone(run, judgement, tmp_path):
    service = Service(judgement)
    batch = [
        QUESTION | {"id": "absent", "images": [tmp_path / "absent.png"]},
        QUESTION | {"id": "odd", "images": [5]},
        {"id": "half", "question": "Which?"},
        "no mapping",
        QUESTION | {"id": "strange", "run_id": object()},
        QUESTION | {"id": "good"},
    ]
    results = run(service, batch)
    failed = {result.id: result for result in results if isinstance(result, FailedLine)}
    assert {name: type(result.error) for name, result in failed.items()} == {
        "absent": ImageRejected,
        "odd": InvalidRequest,
        "half": InvalidRequest,
        None: InvalidRequest,
        "strange": InvalidRequest,
    }
    assert [failed[name].line for name in ("absent", "odd", "half", None, "strange")] == [
        *range(1, 6)
    ]
    assert str(failed["half"].error) == "responses: this is required"
    assert service.ids() == [["good"]]
    assert len(results) == 6


def test_a_line_that_the_service_refuses_is_a_typed_error_and_not_sent_again(run, judgement):
    def picky(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [refusal(sent[1], 2, "context_exceeded"), service.answer(sent[0])]

    service = Service(judgement, picky)
    refused, judged = run(service, lines(2))
    assert (refused.id, refused.line, refused.status) == ("line-2", 2, "error")
    assert (refused.error.code, refused.error.request_id) == ("context_exceeded", "req_7")
    assert (judged.id, judged.status) == ("line-1", "ok")
    assert len(service.uploads) == 1


def test_the_place_of_a_failed_line_is_that_in_the_batch_and_not_in_the_upload(run, judgement):
    def first(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [service.answer(sent[0])]

    def second(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [service.answer(sent[0]), refusal(sent[1], 2, "invalid_request")]

    service = Service(judgement, first, second)
    *_, refused = run(service, lines(3))
    assert (refused.id, refused.line) == ("line-3", 3)


@pytest.mark.parametrize("cause", [httpx.ReadError, httpx.RemoteProtocolError])
def test_what_a_broken_stream_leaves_open_is_sent_again_and_nothing_else(cause, run, judgement):
    def broken(sent: list[dict[str, Any]]) -> httpx.Response:
        def content() -> Iterator[bytes]:
            whole = json.dumps(service.answer(sent[1])).encode() + b"\n"
            yield whole[:50]
            yield whole[50:] + json.dumps(service.answer(sent[0])).encode()[:40]
            raise cause("gone")

        async def awaited():
            for chunk in content():
                yield chunk

        return httpx.Response(200, content=awaited() if "await" in str(run) else content())

    service = Service(judgement, broken, Service(judgement).every)
    results = run(service, lines(3))
    assert [result.id for result in results] == ["line-2", "line-3", "line-1"]
    assert service.ids() == [["line-1", "line-2", "line-3"], ["line-1", "line-3"]]


def test_a_restart_is_waited_for(run, judgement, problem):
    def away(_: Any) -> httpx.Response:
        raise httpx.ConnectError("refused")

    service = Service(
        judgement,
        lambda sent: [service.answer(sent[0]), refusal(sent[1], 2, "draining")],
        lambda _: problem(503, "draining", "0"),
        away,
        lambda sent: service.every(sent),
    )
    results = run(service, lines(2))
    assert [(result.id, result.status) for result in results] == [
        ("line-1", "ok"),
        ("line-2", "ok"),
    ]
    assert [len(upload) for upload in service.uploads] == [2, 1, 1, 1]


def test_a_service_that_stays_away_is_told_and_no_line_is_called_bad(run, judgement, problem):
    def away(_: Any) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ServiceUnreachable):
        run(Service(judgement, away), lines(2), patience_s=0.3)

    down = Service(judgement, lambda sent: [refusal(sent[0], 1, "engine_unavailable")])
    with pytest.raises(EngineUnavailable):
        run(down, lines(1), patience_s=0.3)


def test_a_line_on_which_the_service_always_fails_does_not_hold_up_the_others(run, judgement):
    def one_fails(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found = [
            refusal(line, place, "engine_unavailable")
            if line["id"] == "line-1"
            else service.answer(line)
            for place, line in enumerate(sent, 1)
        ]
        return found

    service = Service(judgement, one_fails)
    results = run(service, lines(3), patience_s=0.3)
    assert [(result.id, result.status) for result in results] == [
        ("line-2", "ok"),
        ("line-3", "ok"),
        ("line-1", "error"),
    ]
    assert results[2].error.code == "engine_unavailable"


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, '{"id": "line-1", "status": "done"}\n'),
        (200, '{"id": "x", "line": 9, "error": {"code": "draining", "detail": "x"}}\n'),
        (200, '{"id": "x", "line": 1, "error": {"code": "never heard"}}\n'),
        (502, "<html>\nBad Gateway\n</html>"),
    ],
)
def test_an_answer_that_is_not_the_services_ends_the_batch(status, content, run, judgement):
    service = Service(judgement, lambda _: httpx.Response(status, content=content))
    with pytest.raises(UnexpectedAnswer):
        run(service, lines(1))


def test_what_a_judge_writes_may_hold_any_separator_but_a_line_feed(run, judgement):
    odd = "a\u2028b\u0085c\u2029d"
    service = Service(judgement, lambda sent: [service.answer(sent[0], evaluation=odd)])
    [result] = run(service, lines(1))
    assert result.evaluation == odd


def test_lines_are_read_as_they_are_needed(run, judgement):
    taken = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for line in lines(4_500):
            taken += 1
            yield line

    seen: list[int] = []
    service = Service(judgement, lambda sent: (seen.append(taken), service.every(sent))[1])
    results = run(service, source())
    assert len({result.id for result in results}) == 4_500
    assert seen == [2_000, 4_000, 4_500]


def test_a_batch_that_is_left_sends_nothing_more(judgement):
    service = Service(judgement)
    with Client("http://grm", transport=httpx.MockTransport(service)) as client:
        batch = client.batch(lines(5_000))
        assert next(batch).id == "line-2000"
        batch.close()
    assert len(service.uploads) == 1


def test_progress_is_shown_on_standard_error(run, judgement, capfd):
    run(Service(judgement), [*lines(2), {}], progress=True)
    said = capfd.readouterr()
    assert "3/3" in said.err
    assert "1 error, 2 ok" in said.err
    assert said.out == ""


def test_a_number_is_an_id_and_anything_else_is_an_error_of_its_line(run, judgement):
    asked = [QUESTION | {"id": 7}, QUESTION | {"id": 1.5}, QUESTION | {"id": "a"}]
    results = run(Service(judgement), asked)
    assert {one.id for one in results if one.status == "ok"} == {"7", "a"}
    [failed] = [one for one in results if one.status == "error"]
    assert (failed.line, failed.error.code) == (2, "invalid_request")
    assert "id: a text or a whole number" in failed.error.detail


def test_pictures_of_a_line_may_come_in_an_array(run, judgement, tmp_path):
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        path.write_bytes(b"x")
    asked = [
        QUESTION | {"id": "paths", "images": np.array([str(path) for path in paths], object)},
        QUESTION | {"id": "tensor", "images": torch.zeros(2, 3, 8, 6)},
    ]
    service = Service(judgement)
    assert [one.status for one in run(service, asked)] == ["ok", "ok"]
    assert [len(line["images"]) for upload in service.uploads for line in upload] == [2, 2]
