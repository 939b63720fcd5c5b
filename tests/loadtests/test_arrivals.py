from __future__ import annotations

import asyncio

import httpx
import pytest

from loadtests.arrivals import Arrivals, sent

pytestmark = pytest.mark.anyio


def arrivals(count: int, rate: float = 1000.0) -> Arrivals:
    return Arrivals("/score", lambda number: b"%d" % number, rate, count / rate)


async def run(handler: object, count: int, rate: float = 1000.0) -> list[tuple[str, str]]:
    transport = httpx.MockTransport(handler)  # pyright: ignore[reportArgumentType]
    async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
        return [(one.outcome, one.code) for one in await sent(client, arrivals(count, rate))]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (httpx.Response(200, json={}), ("ok", "200")),
        (httpx.Response(429, json={"code": "overloaded"}), ("refused", "overloaded")),
        (httpx.Response(503, json={"code": "draining"}), ("refused", "draining")),
        (httpx.Response(504, json={"code": "deadline_exceeded"}), ("refused", "deadline_exceeded")),
        (httpx.Response(422, json={"code": "invalid_request"}), ("failed", "invalid_request")),
        (httpx.Response(500, text="oops"), ("failed", "500")),
        (httpx.Response(503, text="<html>"), ("failed", "503")),
        (httpx.Response(302, headers={"location": "/"}), ("failed", "302")),
        (httpx.Response(429, json=["overloaded"]), ("failed", "429")),
    ],
)
async def test_nothing_but_a_2xx_is_a_success(answer: httpx.Response, outcome: tuple[str, str]):
    assert await run(lambda _: answer, 1) == [outcome]


async def test_a_broken_connection_has_failed():
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    assert await run(broken, 2) == [("failed", "ReadError")] * 2


async def test_arrivals_do_not_wait_for_answers():
    arrived: list[int] = []
    everybody = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        arrived.append(int(request.content))
        if len(arrived) == 50:
            everybody.set()
        await everybody.wait()
        return httpx.Response(200)

    assert await run(slow, 50) == [("ok", "200")] * 50
    assert sorted(arrived) == list(range(50))


async def test_a_request_is_timed_from_when_it_was_due():
    async def blocking(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(blocking), base_url="http://s"
    ) as client:
        answers = await sent(client, arrivals(20, 10_000.0))
    assert [round(one.due_s * 10_000) for one in answers] == list(range(20))
    assert all(one.seconds > 0 for one in answers)
