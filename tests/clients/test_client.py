from __future__ import annotations

import json
import socket
import time
from contextlib import closing
from typing import Any

import httpx
import pytest
from proxy_grm_client import (
    Client,
    DeadlineExceeded,
    Draining,
    EngineUnavailable,
    InvalidRequest,
    NotFound,
    Overloaded,
    ProxyGrmError,
    ReleaseChanged,
    Rubric,
    ServiceUnreachable,
    UnexpectedAnswer,
    Verification,
)
from proxy_grm_client.answers import Judgement
from proxy_grm_client.exchange import Exchange, Pause


class Service:
    """Answers from a list, the last one for ever, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | dict[str, Any] | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, dict):
            return httpx.Response(200, json=answer)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]


def test_a_judgement_comes_back_as_it_was_answered(ask, judgement):
    service = Service(judgement)
    found = ask(service)
    assert isinstance(found, Judgement)
    assert found.model_dump(mode="json", exclude_unset=True) == judgement
    assert (found.preferred, found.probability, found.status) == (1, 0.83, "ok")
    assert found.rubric.criteria[0].name == "Truth"
    [request] = service.requests
    assert (request.method, str(request.url)) == ("POST", "http://grm/score")
    assert service.bodies == [
        {"question": "Which?", "responses": ["One.", "Two."], "images": [], "timeout_s": 5.0}
    ]


def test_an_abstention_is_an_answer_and_no_error(ask, judgement):
    abstains = judgement | {
        "status": "abstain",
        "reason": "unreadable",
        "preferred": None,
        "probability": None,
        "rubric": None,
        "evaluation": None,
    }
    found = ask(Service(abstains))
    assert (found.status, found.reason) == ("abstain", "unreadable")
    assert (found.preferred, found.probability, found.rubric) == (None, None, None)


def test_every_option_reaches_the_service(ask, judgement):
    service = Service(judgement)
    options = {
        "id": "mine",
        "run_id": "run",
        "depth": "verdict",
        "order": "both",
        "votes": 3,
        "temperature": 0.7,
        "seed": 5,
        "require_consistent": True,
        "priority": "batch",
        "cache": "bypass",
        "evaluators": ["proxy"],
        "timeout_s": 2.5,
    }
    ask(service, images=[b"x"], rubric="1. Truth (100%)", **options)
    assert service.bodies == [
        {
            "question": "Which?",
            "responses": ["One.", "Two."],
            "images": [{"data": "eA=="}],
            "rubric": {"text": "1. Truth (100%)"},
            **options,
        }
    ]


def test_a_rubric_may_be_a_text_an_id_or_one_that_came_back(ask, judgement):
    service = Service(judgement)
    came_back = Rubric(id="rub_1", text="1. Tone (100%)")
    for given in ("1. Truth (100%)", "rub_" + "0" * 24, came_back, None):
        ask(service, rubric=given)
    assert [body["rubric"] for body in service.bodies] == [
        {"text": "1. Truth (100%)"},
        {"id": "rub_" + "0" * 24},
        {"text": "1. Tone (100%)"},
        None,
    ]


def test_a_rubric_is_asked_for_at_its_own_path(ask, judgement):
    kept = (
        "id",
        "status",
        "reason",
        "rubric",
        "evaluators",
        "agreement",
        "release",
        "usage",
        "timing",
    )
    answer = {name: judgement[name] for name in kept}
    service = Service(answer)
    found = ask(service, call="rubric", seed=3)
    assert found.model_dump(mode="json", exclude_unset=True) == answer
    [request] = service.requests
    assert request.url.path == "/rubric"
    assert service.bodies[0]["seed"] == 3


def test_a_verification_comes_back_as_it_was_answered(ask, verification):
    service = Service(verification)
    found = ask(service, call="verify", rubric="1. Truth (100%)", label=1, images=[b"x"])
    assert isinstance(found, Verification)
    assert found.model_dump(mode="json", exclude_unset=True) == verification
    assert (found.preferred, found.reward) == (1, 1.0)
    [request] = service.requests
    assert (request.method, request.url.path) == ("POST", "/verify")
    assert service.bodies == [
        {
            "question": "Which?",
            "responses": ["One.", "Two."],
            "images": [{"data": "eA=="}],
            "rubric": {"text": "1. Truth (100%)"},
            "label": 1,
            "timeout_s": 5.0,
        }
    ]


def test_every_option_of_a_verification_reaches_the_service(ask, verification):
    service = Service(verification)
    options = {"id": "mine", "priority": "batch", "evaluator": "mine", "timeout_s": 2.5}
    came_back = Rubric(id="rub_1", text="1. Tone (100%)", justification="never sent")
    ask(service, call="verify", rubric=came_back, **options)
    ask(service, call="verify", rubric="rub_" + "0" * 24, **options)
    asked = {"question": "Which?", "responses": ["One.", "Two."], "images": [], **options}
    assert service.bodies == [
        asked | {"rubric": {"text": "1. Tone (100%)"}},
        asked | {"rubric": {"id": "rub_" + "0" * 24}},
    ]


def test_an_abstention_of_an_evaluator_has_no_reward(ask, verification):
    abstains = verification | {
        "status": "abstain",
        "reason": "truncated",
        "preferred": None,
        "probability": None,
        "reward": None,
    }
    found = ask(Service(abstains), call="verify", rubric="x", label=1)
    assert (found.status, found.reason, found.reward) == ("abstain", "truncated", None)


def test_a_verification_waits_for_a_proxy_that_is_not_there_yet(ask, verification, problem):
    service = Service(problem(503, "engine_unavailable", "0"), verification)
    assert ask(service, call="verify", rubric="x").status == "ok"
    assert len(service.requests) == 2


def test_a_release_without_a_proxy_is_not_found_and_not_asked_again(ask, problem):
    service = Service(problem(404, "not_found"))
    with pytest.raises(NotFound):
        ask(service, call="verify", rubric="x")
    assert len(service.requests) == 1


def test_a_verification_needs_a_rubric(ask):
    with pytest.raises(TypeError, match="rubric"):
        ask(Service({}), call="verify")


def test_fields_that_a_newer_service_adds_are_kept(ask, judgement):
    judgement["confidence"] = {"level": "high"}
    judgement["rubric"]["language"] = "en"
    judgement["verdicts"][0]["latency_s"] = 0.5
    found = ask(Service(judgement))
    assert found.confidence == {"level": "high"}
    assert found.rubric.language == "en"
    assert found.verdicts[0].latency_s == 0.5


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "engine_unavailable"),
        (503, "draining"),
        (429, "overloaded"),
        (429, "rate_limited"),
    ],
)
def test_what_passes_is_asked_again(status: int, code: str, ask, judgement, problem):
    service = Service(problem(status, code, "0"), judgement)
    assert ask(service).preferred == 1
    assert len(service.requests) == 2
    first, second = service.bodies
    assert 0 < second.pop("timeout_s") <= first.pop("timeout_s")  # what time is left
    assert first == second


@pytest.mark.parametrize("cause", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
def test_a_service_that_does_not_answer_is_asked_again(
    cause: type[httpx.TransportError], ask, judgement
):
    service = Service(cause("broken"), judgement)
    assert ask(service).preferred == 1
    assert len(service.requests) == 2


def test_every_attempt_of_a_call_has_its_key_and_no_other_call_has(ask, judgement, problem):
    service = Service(
        problem(429, "overloaded", "0"), httpx.ReadError("lost"), judgement, judgement
    )
    ask(service)
    ask(service)
    first, again, third, other = (
        request.headers["idempotency-key"] for request in service.requests
    )
    assert first == again == third != other


def test_where_an_answer_was_lost_the_same_request_is_sent_again(ask, judgement, problem):
    refused = problem(503, "draining", "0")
    service = Service(refused, httpx.ReadError("lost"), refused, judgement)
    assert ask(service).preferred == 1
    first, second, third, fourth = (request.content for request in service.requests)
    assert json.loads(second)["timeout_s"] < json.loads(first)["timeout_s"]
    assert second == third == fourth


def test_what_never_arrived_is_sent_with_the_time_that_is_left(ask, judgement):
    service = Service(httpx.ConnectError("down"), judgement)
    assert ask(service).preferred == 1
    first, second = service.bodies
    assert second["timeout_s"] < first["timeout_s"]


class LosesAnswers(httpx.HTTPTransport):
    """Reads the first answer and says that there was none."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[httpx.Response] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        answer.read()
        self.answers.append(answer)
        if len(self.answers) == 1:
            raise httpx.ReadError("lost")
        return answer


def test_a_lost_answer_is_given_again_and_not_made_again(jobs_url):
    transport = LosesAnswers()
    options = {"temperature": 1.0, "votes": 2, "cache": "bypass"}
    with Client(jobs_url, transport=transport) as client:
        judgement = client.score("Lost?", ["One.", "Two."], **options)
    lost, replayed = transport.answers
    assert "idempotent-replayed" not in lost.headers
    assert replayed.headers["idempotent-replayed"] == "true"
    assert lost.content == replayed.content
    assert judgement.id == lost.json()["id"]


def test_the_service_decides_how_long_to_wait(ask, judgement, problem):
    service = Service(problem(429, "overloaded", "1"), judgement)
    began = time.monotonic()
    assert ask(service).preferred == 1
    assert 1.0 <= time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (422, "invalid_request"),
        (422, "image_rejected"),
        (422, "context_exceeded"),
        (413, "payload_too_large"),
        (401, "unauthenticated"),
        (404, "not_found"),
        (504, "deadline_exceeded"),
    ],
)
def test_what_cannot_succeed_is_asked_once(status: int, code: str, ask, problem):
    service = Service(problem(status, code))
    with pytest.raises(ProxyGrmError) as raised:
        ask(service)
    assert raised.value.code == code
    assert raised.value.request_id == "req_7"
    assert raised.value.detail == f"this is {code}"
    assert str(raised.value) == f"this is {code} [req_7]"
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind"), [("engine_unavailable", EngineUnavailable), ("draining", Draining)]
)
def test_it_gives_up_within_its_time(code: str, kind: type[ProxyGrmError], ask, problem):
    service = Service(problem(503, code))
    began = time.monotonic()
    with pytest.raises(kind):
        ask(service, client={"timeout_s": 1.0})
    assert time.monotonic() - began < 5
    assert 2 <= len(service.requests) <= 4


def test_it_does_not_wait_for_what_lies_beyond_its_time(ask, problem):
    service = Service(problem(429, "overloaded", "60"))
    began = time.monotonic()
    with pytest.raises(Overloaded):
        ask(service, timeout_s=2.0)
    assert time.monotonic() - began < 1.5
    assert len(service.requests) == 1


def test_the_time_of_a_call_stands_over_that_of_the_client(ask, judgement):
    service = Service(judgement)
    ask(service, client={"timeout_s": 100.0}, timeout_s=7.0)
    assert service.bodies[0]["timeout_s"] == 7.0
    assert 7 < service.requests[0].extensions["timeout"]["read"] <= 12


def test_a_service_that_is_not_there_is_unreachable(ask):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServiceUnreachable, match="ConnectError") as raised:
        ask(None, client={"url": f"http://127.0.0.1:{port}", "timeout_s": 0.1})
    assert raised.value.request_id is None
    assert isinstance(raised.value.__cause__, httpx.ConnectError)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:abc"]
)
def test_an_address_that_can_never_answer_is_not_tried_for_minutes(url: str, ask):
    began = time.monotonic()
    with pytest.raises((ProxyGrmError, ValueError)):
        ask(None, client={"url": url, "timeout_s": 6.0})
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<html>Bad Gateway</html>"),
        httpx.Response(500, json={"detail": "Internal Server Error"}),
        httpx.Response(404, json={"code": "no_such_code", "detail": "x"}),
        httpx.Response(503, json=["a", "list"]),
        httpx.Response(503, json="a text"),
        httpx.Response(503, json={"code": ["x"], "detail": "x"}),
        httpx.Response(503, content=b"\xff\xfe"),
        httpx.Response(503),
        httpx.Response(307, headers={"location": "http://elsewhere/score"}),
        httpx.Response(200, text="<html>Welcome</html>"),
        httpx.Response(200, json={"answer": 1}),
        httpx.Response(200, json=[]),
        httpx.Response(204),
    ],
)
def test_an_answer_that_is_not_the_services_is_unexpected(answer: httpx.Response, ask):
    service = Service(answer)
    with pytest.raises(UnexpectedAnswer) as raised:
        ask(service)
    assert "<html>" not in str(raised.value)
    assert len(service.requests) == 1


def test_an_answer_that_cannot_be_unpacked_is_unexpected(ask):
    def broken(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, content=b"no gzip")

    with pytest.raises(ProxyGrmError):
        ask(broken)


@pytest.mark.parametrize(
    "wrong",
    [
        {"preferred": 3},
        {"preferred": "1"},
        {"probability": "likely"},
        {"status": "done"},
        {"release": None},
        {"verdicts": None},
    ],
)
def test_a_judgement_that_makes_no_sense_is_unexpected(wrong: dict[str, Any], ask, judgement):
    with pytest.raises(UnexpectedAnswer):
        ask(Service(judgement | wrong))


def test_a_deadline_of_the_service_is_not_retried(ask, problem):
    service = Service(problem(504, "deadline_exceeded", "1"))
    with pytest.raises(DeadlineExceeded):
        ask(service)
    assert len(service.requests) == 1


def test_a_picture_that_cannot_be_read_is_told_before_anything_is_sent(ask, judgement, tmp_path):
    service = Service(judgement)
    with pytest.raises(FileNotFoundError):
        ask(service, images=[tmp_path / "absent.png"])
    with pytest.raises(TypeError, match="not int"):
        ask(service, images=[5])
    assert service.requests == []


def test_an_error_ends_no_client(judgement, problem):
    service = Service(problem(422, "invalid_request"), judgement)
    with Client("http://grm", transport=httpx.MockTransport(service)) as client:
        with pytest.raises(InvalidRequest):
            client.score("Which?", ["One."])
        assert client.score("Which?", ["One.", "Two."]).preferred == 1


class TestPauses:
    def pauses(self, timeout_s: float, retry_after: str | None = None) -> list[float]:
        exchange = Exchange("/score", {}, Judgement, timeout_s)
        found: list[float] = []
        try:
            for _ in range(12):
                settled = exchange.settle(self.refusal("overloaded", retry_after))
                assert isinstance(settled, Pause)
                found.append(settled.seconds)
        except Overloaded:
            pass  # no time for another
        return found

    def refusal(self, code: str, retry_after: str | None = None) -> httpx.Response:
        headers = {} if retry_after is None else {"retry-after": retry_after}
        return httpx.Response(429, json={"code": code, "detail": "full"}, headers=headers)

    def test_they_grow_up_to_a_bound(self):
        pauses = self.pauses(1000)
        assert len(pauses) == 12
        assert 0.25 <= pauses[0] <= 0.5
        assert all(4.0 <= pause <= 8.0 for pause in pauses[5:])

    def test_they_differ_between_clients(self):
        assert len({self.pauses(1000)[0] for _ in range(20)}) > 1

    def test_the_service_may_ask_for_longer_ones(self):
        assert self.pauses(1000, "30") == [30.0] * 12

    @pytest.mark.parametrize("unread", ["soon", "Wed, 21 Oct 2026 07:28:00 GMT", "-1", "1.5", ""])
    def test_what_cannot_be_read_as_seconds_is_ignored(self, unread: str):
        assert self.pauses(1000, unread)[0] <= 0.5

    def test_there_is_none_after_an_error_that_stays(self):
        exchange = Exchange("/score", {}, Judgement, 1000)
        with pytest.raises(InvalidRequest):
            exchange.settle(self.refusal("invalid_request", "1"))

    def test_there_is_none_that_would_end_too_late(self):
        assert self.pauses(0.2) == []
        assert self.pauses(20, "21") == []


def test_a_client_may_name_the_release_and_let_runs_change_it(ask, judgement):
    service = Service(judgement)
    ask(service)
    ask(service, client={"release": "grm-7b", "may_change": True})
    names = ("x-proxy-grm-release", "x-proxy-grm-release-change")
    sent = [tuple(request.headers.get(name) for name in names) for request in service.requests]
    assert sent == [(None, None), ("grm-7b", "allow")]


def test_a_run_whose_release_is_gone_is_not_tried_again(ask, problem):
    service = Service(problem(409, "release_changed"))
    with pytest.raises(ReleaseChanged):
        ask(service)
    assert len(service.requests) == 1


def test_a_key_out_of_a_file_loses_its_line_break(ask, judgement):
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("authorization"))
        return httpx.Response(200, json=judgement)

    ask(answer, client={"api_key": " grm_abc\n"})
    assert asked == ["Bearer grm_abc"]


@pytest.mark.parametrize("key", ["grm_\u00e4", "two words", "a\x00b", "line\nbreak"])
def test_what_can_be_no_key_is_told_at_once_and_not_repeated(key: str, ask):
    with pytest.raises(ValueError, match="the API key") as raised:
        ask(None, client={"api_key": key})
    assert key not in str(raised.value)


def test_a_single_text_is_no_list_of_responses():
    with Client() as client, pytest.raises(TypeError, match="a list of texts"):
        client.score("Which?", "ab")
