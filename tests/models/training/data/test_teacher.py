from __future__ import annotations

import asyncio
import json
import socket
import time
from email.utils import formatdate

import pytest
from fastapi import Response
from pydantic import ValidationError

from models.training.data.ledger import Spent
from models.training.data.teacher import NoJudgement, Teacher, TeacherOptions, TeacherUnusable

pytestmark = pytest.mark.anyio

MESSAGES = [
    {"role": "system", "content": "Compare."},
    {"role": "user", "content": [{"type": "text", "text": "<question>\nWhy?\n</question>"}]},
]
GARBAGE = [
    b"", b"no json", b"{", b"[]", b"null", b'"text"', b"{}", b'{"choices": []}', b'{"choices": 5}',
    b'{"choices": [{}]}', b'{"choices": [{"message": {"content": ["a"]}}]}', b"\xff\xfe",
    b'{"error": {"message": "upstream gone", "code": 502}}', b"[" * 100_000,
]  # fmt: skip


class Asked:
    """A teacher that was asked, and what that cost."""

    def __init__(self, url, **changes):
        options = {"backoff_s": 0.001, "longest_backoff_s": 0.01, "deadline_s": 120.0}
        self.options = TeacherOptions(base_url=url, model="t", **(options | changes))
        self.spent = Spent()
        self.problems = []

    async def judgement(self, times=1):
        async with Teacher(self.options, self.problems.append) as teacher:
            deadline = asyncio.get_running_loop().time() + self.options.deadline_s
            asking = [
                teacher.judge(MESSAGES, f"set/{number}", self.spent, deadline)
                for number in range(times)
            ]
            return (await asyncio.gather(*asking))[0]

    async def failure(self):
        with pytest.raises(NoJudgement) as raised:
            await self.judgement()
        return raised.value.failure


def in_turn(*answers):
    """Each request gets the next answer, and all further ones the last."""

    async def script(_body, nth):
        answer = answers[min(nth, len(answers) - 1)]
        return answer() if isinstance(answer, type) else answer

    return script


async def test_a_readable_answer_becomes_a_judgement_with_its_tokens(start_teacher, replies):
    server = start_teacher(in_turn(replies.verdict(2)))
    asked = Asked(server.url, max_tokens=77, temperature=0.25)
    judgement = await asked.judgement()
    assert judgement.model_dump() == {
        "rubric": "1. Accuracy (100%): it is true.",
        "justification": "Truth matters.",
        "evaluation": "The first one counts right.",
        "verdict": 2,
        "model": "t",
        "prompt_tokens": 100,
        "completion_tokens": 20,
    }
    assert asked.spent == Spent(requests=1, prompt_tokens=100, completion_tokens=20)
    (body,) = server.bodies
    assert {**body, "seed": 0} == {
        "model": "t", "messages": MESSAGES, "max_tokens": 77, "temperature": 0.25, "seed": 0,
    }  # fmt: skip


async def test_what_a_server_does_not_know_is_left_out_and_what_it_needs_is_added(
    start_teacher, replies
):
    server = start_teacher(in_turn(replies.verdict(2)))
    extra = {"max_completion_tokens": 9, "chat_template_kwargs": {"enable_thinking": False}}
    await Asked(server.url, max_tokens=None, seed=None, extra_body=extra).judgement()
    assert server.bodies == [{"model": "t", "messages": MESSAGES, "temperature": 0.0, **extra}]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_an_error_that_may_pass_is_waited_out(status, start_teacher, replies):
    server = start_teacher(in_turn(replies.error(status), replies.error(500), replies.verdict(1)))
    asked = Asked(server.url)
    assert (await asked.judgement()).verdict == 1
    assert asked.spent == Spent(requests=3, prompt_tokens=100, completion_tokens=20)
    assert [problem.kind for problem in asked.problems] == ["unavailable"] * 2
    assert f"HTTP {status}" in asked.problems[0].detail


async def test_a_broken_connection_is_waited_out(start_teacher, replies):
    server = start_teacher(in_turn(replies.hangup, replies.hangup, replies.verdict(1)))
    asked = Asked(server.url)
    assert (await asked.judgement()).verdict == 1
    assert asked.spent.requests == 3


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("media_type", ["application/json", "text/html"])
async def test_what_is_no_chat_completion_is_waited_out(
    garbage, media_type, start_teacher, replies
):
    server = start_teacher(in_turn(Response(garbage, media_type=media_type), replies.verdict(2)))
    asked = Asked(server.url)
    assert (await asked.judgement()).verdict == 2
    assert [problem.kind for problem in asked.problems] == ["unavailable"]


async def test_a_slow_answer_is_given_up_and_asked_for_again(start_teacher, replies):
    async def script(_body, nth):
        if nth == 0:
            await asyncio.sleep(30)
        return replies.verdict(2)

    asked = Asked(start_teacher(script).url, request_timeout_s=1.0)
    assert (await asked.judgement()).verdict == 2
    assert {problem.kind for problem in asked.problems} == {"timeout"}


async def test_a_server_that_drips_is_given_up_too(start_teacher, replies):
    class Drip(Response):
        async def __call__(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.sleep(0.05)

    asked = Asked(start_teacher(in_turn(Drip, replies.verdict(2))).url, request_timeout_s=1.0)
    assert (await asked.judgement()).verdict == 2


@pytest.mark.parametrize("as_date", [False, True])
async def test_nobody_asks_before_the_time_that_the_server_names(as_date, start_teacher, replies):
    welcome_at_s = 0.0
    too_early = 0

    async def script(_body, nth):
        nonlocal welcome_at_s, too_early
        if nth == 0:
            welcome_at_s = time.time() + 1
            after = formatdate(welcome_at_s + 1, usegmt=True) if as_date else "1"
            return replies.error(429, retry_after=after)
        too_early += time.time() < welcome_at_s
        return replies.verdict(1)

    server = start_teacher(script)
    async with Teacher(Asked(server.url).options) as teacher:
        now = asyncio.get_running_loop().time
        first = asyncio.create_task(teacher.judge(MESSAGES, "a", Spent(), now() + 120))
        while not welcome_at_s:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await asyncio.gather(first, teacher.judge(MESSAGES, "b", Spent(), now() + 120))
    assert (len(server.bodies), too_early) == (3, 0)


@pytest.mark.parametrize("after", ["soon", "-5", "nan", "inf", "", "Thu, 99 Foo 2020", "1e-3"])
async def test_a_strange_retry_after_counts_for_nothing(after, start_teacher, replies):
    server = start_teacher(in_turn(replies.error(429, retry_after=after), replies.verdict(1)))
    assert (await Asked(server.url).judgement()).verdict == 1


async def test_to_wait_longer_than_the_deadline_is_not_begun(start_teacher, replies):
    server = start_teacher(in_turn(replies.error(429, retry_after="100000")))
    failure = await Asked(server.url).failure()
    assert failure.kind == "unavailable"
    assert "asks to wait" in failure.detail
    assert len(server.bodies) == 1


async def test_at_the_deadline_the_last_problem_is_the_failure(start_teacher, replies):
    async def script(_body, nth):
        return replies.error(503) if nth < 3 else await asyncio.sleep(30)

    server = start_teacher(script)
    failure = await Asked(server.url, deadline_s=3.0).failure()
    assert (failure.kind, failure.detail.partition(":")[0]) == ("unavailable", "HTTP 503")
    assert len(server.bodies) > 1


async def test_no_answer_until_the_deadline_is_a_timeout(start_teacher):
    async def script(_body, _nth):
        await asyncio.sleep(30)

    assert (await Asked(start_teacher(script).url, deadline_s=0.3).failure()).kind == "timeout"


async def test_a_server_that_is_not_there_is_unavailable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        failure = await Asked(url, deadline_s=4.0).failure()
    assert failure.kind == "unavailable"
    assert "Connect" in failure.detail


@pytest.mark.parametrize(
    "text",
    [
        "", None, "1", "<answer>1</answer>", "The better response is 1.",
        "<rubric>\n1. A (100%)\n</rubric>\n<eval>x</eval>\n<answer>3</answer>",
        "<rubric>\n1. A (100%)\n</rubric>\n<eval>x</eval>\n<answer>1</answer><answer>2</answer>",
        "<rubric>\n1. A (100%)\n</rubric>\n<eval><answer>1</answer></eval>\n<answer>2</answer>",
        "<rubric>\n</rubric>\n<eval>x</eval>\n<answer>1</answer>",
        "<eval>x</eval>\n<answer>1</answer>",
        "Sure!\n<rubric>\n1. A (100%)\n</rubric>\n<eval>x</eval>\n<answer>1</answer>",
    ],
)  # fmt: skip
async def test_an_unreadable_answer_is_never_a_verdict(text, start_teacher, replies):
    server = start_teacher(in_turn(replies.completion(text)))
    asked = Asked(server.url, reasks=1)
    assert (await asked.failure()).kind == "unreadable"
    assert asked.spent == Spent(requests=2, prompt_tokens=200, completion_tokens=40)


async def test_an_unreadable_answer_is_asked_for_again_with_another_seed_and_some_temperature(
    start_teacher, replies
):
    unreadable = replies.completion("hm")
    server = start_teacher(in_turn(unreadable, unreadable, replies.verdict(2)))
    asked = Asked(server.url, reasks=2, reask_temperature=0.5)
    assert (await asked.judgement()).verdict == 2
    assert [body["temperature"] for body in server.bodies] == [0.0, 0.5, 0.5]
    assert len({body["seed"] for body in server.bodies}) == 3
    assert asked.spent == Spent(requests=3, prompt_tokens=300, completion_tokens=60)
    again = start_teacher(in_turn(unreadable, unreadable, replies.verdict(2)))
    await Asked(again.url, reasks=2, reask_temperature=0.5).judgement()
    assert again.bodies == server.bodies, "the same seed asks the same"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"finish": "length"}, "truncated"),
        ({"finish": "content_filter"}, "refused"),
        ({"refusal": "I cannot judge this."}, "refused"),
    ],
)
async def test_an_answer_that_is_cut_off_or_refused_is_final_even_where_it_reads_well(
    answer, kind, start_teacher, replies
):
    server = start_teacher(in_turn(replies.completion(replies.judgement(1), **answer)))
    asked = Asked(server.url)
    assert (await asked.failure()).kind == kind
    assert asked.spent == Spent(requests=1, prompt_tokens=100, completion_tokens=20)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "context_length_exceeded", "rejected"),
        (400, "content_filter", "refused"),
        (403, None, "rejected"),
        (413, None, "rejected"),
        (422, None, "rejected"),
    ],
)
async def test_a_request_that_the_server_does_not_take_is_not_repeated(
    status, code, kind, start_teacher, replies
):
    server = start_teacher(in_turn(replies.error(status, code)))
    failure = await Asked(server.url).failure()
    assert failure.kind == kind
    assert failure.detail.startswith(f"HTTP {status}: ")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (401, None, "api_key_file"),
        (402, None, "credit"),
        (404, "model_not_found", "check base_url and model"),
        (405, None, "base_url"),
        (429, "insufficient_quota", "credit"),
    ],
)
async def test_a_wrong_set_up_is_told_at_once(status, code, advice, start_teacher, replies):
    server = start_teacher(in_turn(replies.error(status, code)))
    with pytest.raises(TeacherUnusable, match=advice):
        await Asked(server.url).judgement()
    assert len(server.bodies) == 1


async def test_the_key_comes_from_its_file_and_is_in_no_message(start_teacher, replies, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("sk-secret\n")
    leak = {"error": {"message": "wrong key: sk-secret"}}
    server = start_teacher(
        in_turn(Response(json.dumps(leak), 500), Response(json.dumps(leak), 401))
    )
    asked = Asked(server.url, api_key_file=key_file)
    with pytest.raises(TeacherUnusable) as raised:
        await asked.judgement()
    assert server.headers[0]["authorization"] == "Bearer sk-secret"
    assert "wrong key: …" in str(raised.value)
    assert "secret" not in str(raised.value) + asked.problems[0].detail


async def test_secrets_meant_for_openai_are_not_sent_to_another_server(
    start_teacher, replies, monkeypatch
):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "secret")
    server = start_teacher(in_turn(replies.verdict(1)))
    await Asked(server.url).judgement()
    assert "secret" not in str(server.headers)


@pytest.mark.parametrize(
    "content", [None, b"", b"two keys", "schlüssel".encode(), b"\xff", b"a\nb"]
)
async def test_a_key_file_without_a_key_is_told_before_anything_is_asked(content, tmp_path):
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_bytes(content)
    with pytest.raises(TeacherUnusable, match="api_key_file"):
        Teacher(Asked("http://127.0.0.1:9/v1", api_key_file=key_file).options)


@pytest.mark.parametrize(
    "url", ["", "teacher:8000/v1", "ftp://a/v1", "http://", "http://[::1/v1", "http://a b/v1"]
)
def test_a_broken_address_is_refused(url):
    with pytest.raises(ValidationError, match="base_url"):
        Asked(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "https://[::1]:8000/v1/", "https://api.example.org/v1?a=b"]
)
async def test_any_whole_address_is_taken(url):
    async with Teacher(Asked(url).options):
        pass


@pytest.mark.parametrize(
    "usage", [None, 5, {}, {"prompt_tokens": None, "completion_tokens": 3}, {"prompt_tokens": -1}]
)
async def test_an_answer_without_a_token_count_is_counted_as_such(usage, start_teacher, replies):
    answer = replies.completion(replies.judgement(1), usage=usage)
    asked = Asked(start_teacher(in_turn(answer)).url)
    judgement = await asked.judgement()
    assert (judgement.prompt_tokens, judgement.completion_tokens) == (0, 0)
    assert asked.spent == Spent(requests=1, unmetered=1)


async def test_half_a_surrogate_pair_in_an_answer_can_be_written(start_teacher, replies):
    answer = replies.completion(replies.judgement(1, "\ud83d and \U0001f600"))
    judgement = await Asked(start_teacher(in_turn(answer)).url).judgement()
    assert judgement.evaluation == "? and \U0001f600"
    assert "? and" in judgement.model_dump_json()


async def test_a_cancellation_passes_through(start_teacher):
    async def script(_body, _nth):
        await asyncio.sleep(30)

    server = start_teacher(script)
    asked = Asked(server.url)
    task = asyncio.create_task(asked.judgement())
    while not server.bodies:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asked.problems == []
