from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.jobs.job_store import JobStore
from service.jobs.leases import Leases, Result
from service.settings import JobSettings

from .conftest import judged, numbered, refused

pytestmark = pytest.mark.anyio


class Gateway:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[httpx.Request, int], httpx.Response]) -> None:
        self._answer = answer
        self.asked: Counter[str] = Counter()
        self.ready = True
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/readyz":
            return httpx.Response(200 if self.ready else 503)
        body = json.loads(request.content)
        self.bodies.append(body)
        self.asked[body["id"]] += 1
        return self._answer(request, self.asked[body["id"]])


class Held:
    """A gateway that answers nothing until it is let."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0
        self.left = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.running += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.running -= 1
        return judged(request)


@pytest.mark.parametrize("order", ["input", "completed"])
async def test_each_line_has_one_result(order: str, started, working, ended):
    job = await started(numbered(300))
    assert (job.state, job.total, job.chunks, job.eta_s) == ("queued", 300, 5, None)
    async with working(judged, "one"), working(judged, "two"):
        status, results = await ended(job, order)
    assert (status.state, status.ok, status.abstain, status.error) == ("done", 300, 0, 0)
    assert sorted(result["line"] for result in results) == list(range(1, 301))
    assert all(result["id"] == f"n{result['line']}" for result in results)
    if order == "input":
        assert [result["line"] for result in results] == list(range(1, 301))
    assert status.eta_s == 0


async def test_lines_let_single_requests_go_first_unless_they_ask_otherwise(
    started, working, ended
):
    gateway = Gateway(lambda request, _: judged(request))
    job = await started([*numbered(1), *numbered(1, priority="interactive")])
    async with working(gateway):
        await ended(job)
    assert [body["priority"] for body in gateway.bodies] == ["batch", "interactive"]


async def test_what_a_gateway_says_of_a_line_is_that_lines_result(started, working, ended):
    def answer(request: httpx.Request) -> httpx.Response:
        question = json.loads(request.content)["question"] if b"question" in request.content else ""
        if question == "question 1":
            return judged(request, "abstain")
        if question == "question 2":
            return refused(422, "image_rejected")
        return judged(request) if question else refused(422, "invalid_request")

    job = await started([*numbered(3), b"no json", b'["a list"]', b'{"id": 7}', b"x" * 10_001])
    async with working(answer):
        status, results = await ended(job)
    assert (status.state, status.total) == ("done", 7)
    assert (status.ok, status.abstain, status.error) == (1, 1, 5)
    assert results[0] == {"line": 1, "id": "n1", "status": "abstain"}
    problem = {"code": "image_rejected", "status": 422}
    assert results[1] == {"line": 2, "id": "n2", "error": problem}
    assert results[2] == {"line": 3, "id": "n3", "status": "ok"}
    assert [result["error"]["code"] for result in results[3:]] == [
        "invalid_request",
        "invalid_request",
        "invalid_request",
        "payload_too_large",
    ]
    assert [result["id"] for result in results[3:]] == [None] * 4
    assert results[6]["error"]["request_id"] == f"{job.id}:7"


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: refused(429, "overloaded"),
        lambda: refused(429, "rate_limited"),
        lambda: refused(503, "draining"),
        lambda: httpx.Response(502, text="<html>bad gateway</html>"),
        lambda: httpx.Response(404, json={"detail": "Not Found"}),
        lambda: refused(401, "unauthenticated"),
        lambda: httpx.Response(200, text="hello"),
    ],
    ids=["full", "quota", "draining", "no gateway", "another service", "no key", "a page"],
)
async def test_a_gateway_that_takes_nothing_costs_no_line_however_often_it_refuses(
    refusal: Callable[[], httpx.Response], started, working, ended
):
    gateway = Gateway(lambda request, time: refusal() if time < 12 else judged(request))
    job = await started(numbered(1))
    async with working(gateway) as throttle:
        throttle.longest_pause_s = 0.01
        status, results = await ended(job)
    assert (status.ok, status.error) == (1, 0)
    assert results == [{"line": 1, "id": "n1", "status": "ok"}]
    assert gateway.asked["n1"] == 12


async def test_a_gateway_that_cannot_be_reached_costs_no_line(started, working, ended):
    def answer(request: httpx.Request, time: int) -> httpx.Response:
        if time < 12:
            raise httpx.ConnectError("refused")
        return judged(request)

    job = await started(numbered(3))
    async with working(Gateway(answer)) as throttle:
        throttle.longest_pause_s = 0.01
        status, _ = await ended(job)
    assert (status.ok, status.error) == (3, 0)


@pytest.mark.parametrize("how", ["engine_unavailable", "deadline_exceeded", "broken"])
async def test_a_line_on_which_the_gateway_always_fails_becomes_an_error_and_takes_no_other_along(
    how: str, started, working, ended
):
    """Whatever is in work when line 5 is worked on fails with it, as when an engine dies."""
    poisoned = asyncio.Event()
    together: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/readyz":
            return httpx.Response(200)
        line = json.loads(request.content)["id"]
        together.append(line)
        if line == "n5":
            poisoned.set()
        try:
            await asyncio.wait_for(poisoned.wait(), 0.02)
        except TimeoutError:
            return judged(request)
        finally:
            together.remove(line)
            if "n5" not in together:
                poisoned.clear()
        if how == "broken":
            raise httpx.RemoteProtocolError("gone")
        return refused(503, how, **{"retry-after": "0"})

    job = await started(numbered(40))
    async with working(answer) as throttle:
        throttle.longest_pause_s = 0.01
        status, results = await ended(job)
    assert (status.ok, status.error) == (39, 1)
    [error] = [result for result in results if "error" in result]
    assert (error["id"], error["line"]) == ("n5", 5)
    assert error["error"]["code"] == ("engine_unavailable" if how == "broken" else how)


async def test_nothing_that_failed_is_tried_again_before_the_gateway_is_ready(
    started, working, ended
):
    gateway = Gateway(
        lambda request, time: refused(503, "engine_unavailable") if time == 1 else judged(request)
    )
    gateway.ready = False
    job = await started(numbered(2))
    async with working(gateway) as throttle:
        throttle.longest_pause_s = 0.01
        while gateway.asked.total() < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert gateway.asked == {"n1": 1, "n2": 1}
        gateway.ready = True
        status, _ = await ended(job)
    assert status.ok == 2


async def test_a_cancelled_job_stops_what_is_being_done_of_it(
    started, working, ended, store: JobStore, until
):
    gateway = Held()
    job = await started(numbered(200))
    async with working(gateway, in_flight=8):
        await until(lambda: gateway.running == 8)
        cancelled = await store.cancel(job.id)
        assert (cancelled.state, cancelled.ok, cancelled.eta_s) == ("cancelled", 0, 0)
        await until(lambda: gateway.left == 8)
        assert gateway.running == 0
        assert await store.cancel(job.id) == cancelled
    assert await ended(job) == (cancelled, [])


async def test_of_a_cancelled_job_what_was_done_is_kept(started, working, ended, store, until):
    held = Held()

    async def answer(request: httpx.Request) -> httpx.Response:
        line = int(json.loads(request.content)["id"][1:])
        return judged(request) if line <= 66 and line != 3 else await held(request)

    job = await started(numbered(130))
    async with working(answer, in_flight=130):
        await until(lambda: held.running > 30)
        status = await store.cancel(job.id)
    for order in ("input", "completed"):
        found, results = await ended(job, order)
        assert found == status
        assert len(results) == status.ok
        assert {result["line"] for result in results} <= set(range(1, 67)) - {3}


async def test_a_chunk_of_a_worker_that_died_is_taken_over_without_what_it_had_done(
    connection, started, working, ended
):
    settings = JobSettings(lease_s=0.5)
    job = await started(numbered(100))
    dead = Leases(connection, settings, "dead")
    lease = await dead.next()
    assert lease is not None
    lines = await dead.lines(lease)
    for line in lines[:20]:
        await dead.record(lease, line, Result("abstain", b'{"line":%d}' % line.number))
    gateway = Gateway(lambda request, _: judged(request))
    async with working(gateway, "alive", jobs=settings):
        status, results = await ended(job)
    assert (status.state, status.ok, status.abstain, status.error) == ("done", 80, 20, 0)
    assert [result["line"] for result in results] == list(range(1, 101))
    assert set(gateway.asked) == {f"n{n}" for n in range(21, 101)}
    assert set(gateway.asked.values()) == {1}


async def test_a_worker_that_stops_finishes_what_it_has_in_work_and_hands_the_rest_on_at_once(
    started, working, ended, until
):
    held, after = Held(), Gateway(lambda request, _: judged(request))
    job = await started(numbered(50))
    async with working(held, "first", in_flight=5) as throttle:
        await until(lambda: held.running == 5)
        throttle.close()
        held.go.set()
    async with working(after, "second"):  # the leases of the first would hold for half a minute
        status, _ = await ended(job)
    assert (status.state, status.ok) == ("done", 50)
    assert after.asked.total() == 45


async def test_a_long_job_does_not_hold_up_a_short_one(started, working, ended, store: JobStore):
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.001)
        return judged(request)

    long = await started(numbered(3000))
    short = await started(numbered(10))
    async with working(answer, in_flight=8):
        status, _ = await ended(short)
        assert status.ok == 10
        assert (await store.status(long.id)).state == "running"
        assert (await store.status(long.id)).ok < 2000
