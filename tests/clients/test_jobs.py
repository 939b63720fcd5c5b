from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from proxy_grm_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    FailedLine,
    ImageRejected,
    InvalidRequest,
    Judgement,
    NotFound,
    PayloadTooLarge,
    ServiceUnreachable,
    StoreUnavailable,
    UnexpectedAnswer,
)

QUESTION = {"question": "Which?", "responses": ["One.", "Two."]}
JOB = "job_" + "0" * 32
ACCEPTED = {"id": JOB, "state": "queued"}


def lines(number: int, **more: Any) -> list[dict[str, Any]]:
    return [QUESTION | {"id": f"n{place}"} | more for place in range(1, number + 1)]


def standing(state: str, ok: int = 0, **more: Any) -> dict[str, Any]:
    counts = {"total": 3, "ok": ok, "abstain": 0, "error": 0}
    return {"id": JOB, "state": state, "counts": counts, "eta_s": None, "reason": None} | more


@pytest.fixture(params=["waiting", "awaiting"])
def of_jobs(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls a method of `Client.jobs`, and in another test of `AsyncClient.jobs`."""

    def waiting(made: dict[str, Any], call: str, *args: Any, **options: Any) -> Any:
        with Client(**made) as client:
            found = getattr(client.jobs, call)(*args, **options)
            return list(found) if call == "results" else found

    def awaiting(made: dict[str, Any], call: str, *args: Any, **options: Any) -> Any:
        async def asked() -> Any:
            async with AsyncClient(**made) as client:
                found = getattr(client.jobs, call)(*args, **options)
                return [one async for one in found] if call == "results" else await found

        return asyncio.run(asked())

    asking = waiting if request.param == "waiting" else awaiting

    def asked(service: Any, call: str, *args: Any, **options: Any) -> Any:
        if isinstance(service, str):
            return asking({"url": service}, call, *args, **options)
        made = {"url": "http://grm", "timeout_s": 5.0, "transport": httpx.MockTransport(service)}
        return asking(made, call, *args, **options)

    return asked


class Service:
    """Answers from a list, the last one for ever, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.requests: list[tuple[str, str, bytes]] = []
        self.headers: list[httpx.Headers] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.method, request.url.raw_path.decode(), request.content))
        self.headers.append(request.headers)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return httpx.Response(
                answer.status_code, headers=answer.headers, content=answer.content
            )
        if isinstance(answer, dict):
            return httpx.Response(200, json=answer)
        return httpx.Response(200, stream=Stream(answer))


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Pieces of an answer; an error among them breaks it off."""

    def __init__(self, pieces: Iterable[bytes | Exception]) -> None:
        self._pieces = list(pieces)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


@pytest.fixture
def result(judgement: dict[str, Any]) -> Callable[[int], bytes]:
    """A line of results."""
    return lambda place: json.dumps(judgement | {"id": f"n{place}", "line": place}).encode() + b"\n"


class TestSubmitting:
    def test_lines_are_sent_as_a_batch_sends_them(self, of_jobs, tmp_path):
        service = Service(httpx.Response(202, json=ACCEPTED))
        picture = tmp_path / "x.png"
        picture.write_bytes(b"x")
        batch = [QUESTION | {"id": "a", "images": [picture]}, QUESTION | {"order": "given"}]
        job = of_jobs(service, "submit", batch, order="both")
        assert (job.id, job.state) == (JOB, "queued")
        [(method, path, content)] = service.requests
        assert (method, path) == ("POST", "/jobs")
        assert service.headers[0]["content-type"] == "application/x-ndjson"
        assert service.headers[0]["content-length"] == str(len(content))
        assert [json.loads(line) for line in content.splitlines()] == [
            QUESTION | {"id": "a", "order": "both", "timeout_s": 5.0, "images": [{"data": "eA=="}]},
            QUESTION | {"id": "line-2", "order": "given", "timeout_s": 5.0, "images": []},
        ]

    def test_more_than_a_piece_arrives_whole_also_the_second_time(self, of_jobs, problem):
        service = Service(problem(429, "overloaded", "0"), httpx.Response(202, json=ACCEPTED))
        of_jobs(service, "submit", iter(lines(3_000, question="?" * 200)))
        (_, _, first), (_, _, second) = service.requests
        assert first == second
        assert [json.loads(line)["id"] for line in second.splitlines()][-1] == "n3000"

    @pytest.mark.parametrize(
        ("wrong", "kind", "told"),
        [
            ("no line", InvalidRequest, "line-2: a line is"),
            ({"id": "b", "question": "?"}, InvalidRequest, "b: responses"),
            (QUESTION | {"images": ["absent.png"]}, ImageRejected, "line-2: .*absent"),
        ],
    )
    def test_a_line_that_can_never_be_judged_is_told_before_anything_is_sent(
        self, wrong: Any, kind: type[Exception], told: str, of_jobs
    ):
        service = Service(ACCEPTED)
        with pytest.raises(kind, match=told):
            of_jobs(service, "submit", [QUESTION, wrong])
        assert service.requests == []

    @pytest.mark.parametrize("cause", [httpx.ConnectError, httpx.WriteError])
    def test_what_cannot_have_arrived_is_sent_again(
        self, cause: type[httpx.TransportError], of_jobs
    ):
        service = Service(cause("broken"), httpx.Response(202, json=ACCEPTED))
        assert of_jobs(service, "submit", lines(1)).id == JOB
        assert len(service.requests) == 2

    @pytest.mark.parametrize("call", ["submit", "submit_source"])
    @pytest.mark.parametrize("cause", [httpx.ReadTimeout, httpx.RemoteProtocolError])
    def test_what_may_have_become_a_job_is_not_sent_twice(
        self, cause: type[httpx.TransportError], call: str, of_jobs
    ):
        service = Service(cause("broken"), httpx.Response(202, json=ACCEPTED))
        with pytest.raises(ServiceUnreachable):
            of_jobs(service, call, lines(1) if call == "submit" else "file:///x.jsonl")
        assert len(service.requests) == 1

    def test_a_source_is_named_alone(self, of_jobs, problem):
        refused = problem(503, "store_unavailable", "0")
        service = Service(refused, httpx.Response(202, json=ACCEPTED))
        assert of_jobs(service, "submit_source", "s3://b/x.parquet").id == JOB
        bodies = [json.loads(content) for _, _, content in service.requests]
        assert bodies == [{"source": "s3://b/x.parquet"}] * 2

    def test_too_large_a_job_is_refused(self, of_jobs, problem):
        with pytest.raises(PayloadTooLarge):
            of_jobs(Service(problem(413, "payload_too_large")), "submit", lines(1))


class TestWaiting:
    def test_it_looks_until_the_job_has_ended(self, of_jobs):
        service = Service(standing("queued"), standing("running", 1), standing("done", 3))
        found = of_jobs(service, "wait", JOB)
        assert (found.state, found.counts.ok, found.ended) == ("done", 3, True)
        assert [request[:2] for request in service.requests] == [("GET", f"/jobs/{JOB}")] * 3

    @pytest.mark.parametrize("state", ["done", "cancelled", "failed"])
    def test_every_end_is_one(self, state: str, of_jobs):
        assert of_jobs(Service(standing(state)), "wait", JOB).state == state

    def test_a_service_that_is_away_meanwhile_is_waited_for(self, of_jobs):
        service = Service(standing("running"), httpx.ConnectError("gone"), standing("done", 3))
        assert of_jobs(service, "wait", JOB).state == "done"

    def test_who_has_no_more_time_is_told_and_the_job_goes_on(self, of_jobs):
        service = Service(standing("running"))
        with pytest.raises(DeadlineExceeded, match="still running"):
            of_jobs(service, "wait", JOB, timeout_s=0.1)
        assert {method for method, _, _ in service.requests} == {"GET"}

    def test_progress_is_shown_on_demand(self, of_jobs, capsys):
        of_jobs(Service(standing("running", 1), standing("done", 3)), "wait", JOB, progress=True)
        said = capsys.readouterr()
        assert said.out == ""
        assert "3/3" in said.err
        assert "3 ok" in said.err


class TestResults:
    def test_each_line_has_its_result(self, of_jobs, result):
        failed = {
            "id": None,
            "line": 2,
            "error": {"code": "invalid_request", "detail": "no", "request_id": f"{JOB}:2"},
        }
        answer = [result(1)[:50], result(1)[50:] + json.dumps(failed).encode(), b"\n" + result(3)]
        service = Service(answer)
        first, second, third = of_jobs(service, "results", JOB, order="completed")
        assert isinstance(first, Judgement)
        assert isinstance(second, FailedLine)
        assert (first.id, second.id, second.line, third.id) == ("n1", None, 2, "n3")
        assert second.error.request_id == f"{JOB}:2"
        assert service.requests[0][:2] == ("GET", f"/jobs/{JOB}/results?order=completed")

    @pytest.mark.parametrize(
        "broken", [httpx.ReadError("cut"), httpx.RemoteProtocolError("cut"), httpx.ReadTimeout("?")]
    )
    def test_an_answer_that_breaks_off_is_read_again_and_each_line_given_once(
        self, broken: Exception, of_jobs, result
    ):
        cut = [result(1), result(2)[:20], broken]
        service = Service(cut, httpx.ConnectError("down"), [result(1), result(2), result(3)])
        found = of_jobs(service, "results", JOB)
        assert [one.id for one in found] == ["n1", "n2", "n3"]
        assert len(service.requests) == 3

    def test_a_service_that_stays_away_is_given_up(self, of_jobs, problem):
        with pytest.raises(StoreUnavailable):
            of_jobs(Service(problem(503, "store_unavailable")), "results", JOB, patience_s=0.6)

    @pytest.mark.parametrize(
        "nonsense", [b"hm\n", b"[]\n", b"{}\n", b'{"line": 1, "error": {"code": "x"}}\n']
    )
    def test_what_is_no_result_is_told(self, nonsense: bytes, of_jobs):
        with pytest.raises(UnexpectedAnswer):
            of_jobs(Service([nonsense]), "results", JOB)


@pytest.mark.parametrize("call", ["status", "wait", "results", "cancel"])
def test_an_id_reaches_no_other_resource(call: str, of_jobs, problem):
    service = Service(problem(404, "not_found"))
    with pytest.raises(NotFound):
        of_jobs(service, call, "../score?x=/")
    [(_, path, _)] = service.requests
    assert path.startswith("/jobs/..%2Fscore%3Fx%3D%2F")


def test_a_real_job_goes_from_its_lines_to_its_results(jobs_url, of_jobs, tmp_path: Path):
    file = tmp_path / "cat.png"
    Image.new("RGB", (64, 48), "teal").save(file)
    batch = [*lines(70, images=[file]), QUESTION | {"responses": ["One.", " "]}]
    job = of_jobs(jobs_url, "submit", batch, depth="verdict")
    found = of_jobs(jobs_url, "wait", job.id)
    counts = found.counts
    assert (found.state, counts.total, counts.ok, counts.error) == ("done", 71, 70, 1)
    results = of_jobs(jobs_url, "results", job.id)
    assert [one.id for one in results] == [f"n{place}" for place in range(1, 71)] + ["line-71"]
    assert {one.status for one in results[:70]} == {"ok"}
    assert {one.evaluation for one in results[:70]} == {None}
    assert results[70].error.code == "invalid_request"
    assert of_jobs(jobs_url, "cancel", job.id) == of_jobs(jobs_url, "status", job.id)
    with pytest.raises(NotFound):
        of_jobs(jobs_url, "status", "job_" + "f" * 32)


def test_a_real_source_is_read_where_that_is_allowed(jobs_url, job_sources, of_jobs):
    source = job_sources / "pairs.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines(3)))
    job = of_jobs(jobs_url, "submit_source", f"file://{source}")
    assert [one.status for one in of_jobs(jobs_url, "results", job.id)] == ["ok"] * 3
    with pytest.raises(InvalidRequest):
        of_jobs(jobs_url, "submit_source", "file:///etc/passwd")
