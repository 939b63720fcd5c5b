from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from service.jobs.asking import Asking
from service.jobs.connection import Connection
from service.jobs.leases import Leases
from service.jobs.throttle import Throttle
from service.jobs.working import Working
from service.settings import WorkerSettings

pytestmark = pytest.mark.anyio

NDJSON = {"content-type": "application/x-ndjson"}


def lines(count: int, **changes: Any) -> bytes:
    asked = {"responses": ["One.", "Two."]} | changes
    return b"".join(
        json.dumps({"id": f"n{n}", "question": f"question {n}"} | asked).encode() + b"\n"
        for n in range(1, count + 1)
    )


async def sent(gateway: Any, content: Any, **headers: str) -> httpx.Response:
    return await gateway.client.post("/jobs", content=content, headers=NDJSON | headers)


async def state(gateway: Any, job_id: str) -> dict[str, Any]:
    answer = await gateway.client.get(f"/jobs/{job_id}")
    assert answer.status_code == 200
    return answer.json()


async def results(gateway: Any, job_id: str, **query: str) -> list[dict[str, Any]]:
    answer = await gateway.client.get(f"/jobs/{job_id}/results", params=query, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.content.splitlines()]


@pytest.fixture
def worker(redis_url: str) -> Callable[..., Any]:
    """A worker beside a gateway."""

    @asynccontextmanager
    async def run(gateway: Any) -> AsyncGenerator[None]:
        connection = Connection(redis_url)
        url = str(gateway.client.base_url)
        asking = Asking(WorkerSettings(gateway_url=url), gateway.transport)
        leases = Leases(connection, gateway.parts.settings.jobs, "one")
        stopping = asyncio.Event()
        working = Working(leases, asking, Throttle(64), gateway.parts.settings)
        task = asyncio.create_task(working.run(stopping, 5.0))
        yield
        stopping.set()
        await task
        await asking.close()
        await connection.close()

    return run


async def test_a_job_goes_from_queued_to_done_and_answers_as_score_does(gateway, worker):
    alone = (await gateway.score(id="n2", question="question 2", responses=["One.", "Two."])).json()
    answer = await sent(gateway, lines(3) + b"\n{oops\n" + lines(1, responses=["One."]))
    assert answer.status_code == 202
    job = answer.json()
    assert job == {"id": job["id"], "state": "queued"}
    assert await state(gateway, job["id"]) == {
        "id": job["id"],
        "state": "queued",
        "counts": {"total": 5, "ok": 0, "abstain": 0, "error": 0},
        "eta_s": None,
        "reason": None,
    }
    async with worker(gateway):
        found = await results(gateway, job["id"])
    assert await state(gateway, job["id"]) == {
        "id": job["id"],
        "state": "done",
        "counts": {"total": 5, "ok": 3, "abstain": 0, "error": 2},
        "eta_s": 0,
        "reason": None,
    }
    assert [result["line"] for result in found] == [1, 2, 3, 5, 6]
    for changing in ("timing", "cached", "usage"):
        alone.pop(changing)
        found[1].pop(changing)
    assert found[1] == alone | {"line": 2}
    assert found[3]["error"]["code"] == found[4]["error"]["code"] == "invalid_request"
    assert found[3]["error"]["request_id"] == f"{job['id']}:5"
    assert (found[3]["id"], found[4]["id"]) == (None, "n1")
    counted = {"route": "/score", "outcome": "invalid_request"}
    assert gateway.count("proxy_grm_requests_total", **counted) == 2


async def test_cancelling_ends_it_once_and_its_work_in_the_engine(start_gateway, worker, until):
    gateway = await start_gateway(seconds=60, listening=True)
    job = (await sent(gateway, lines(100))).json()["id"]
    async with worker(gateway):
        await until(lambda: gateway.engine.running == 8)
        first = await gateway.client.delete(f"/jobs/{job}")
        assert (first.status_code, first.json()["state"]) == (200, "cancelled")
        await until(lambda: gateway.engine.cancelled == 8)
        assert gateway.engine.running == 0
    again = await gateway.client.delete(f"/jobs/{job}")
    assert (again.status_code, again.json()) == (200, first.json())
    assert await results(gateway, job) == []


async def test_a_job_that_is_done_is_not_cancelled(gateway, worker):
    job = (await sent(gateway, lines(2))).json()["id"]
    async with worker(gateway):
        await results(gateway, job)
    answer = await gateway.client.delete(f"/jobs/{job}")
    assert (answer.status_code, answer.json()["state"]) == (200, "done")
    assert len(await results(gateway, job, order="completed")) == 2


@pytest.mark.parametrize("content", [b"", b"\n \n"])
async def test_nothing_to_do_is_done(content: bytes, gateway):
    job = (await sent(gateway, content)).json()
    assert job["state"] == "done"
    assert await results(gateway, job["id"]) == []


@pytest.mark.parametrize("job", ["job_" + "0" * 32, "nonsense", "%00", "job_*"])
async def test_an_unknown_job_is_not_found(job: str, gateway):
    answers = [
        await gateway.client.get(f"/jobs/{job}"),
        await gateway.client.get(f"/jobs/{job}/results"),
        await gateway.client.delete(f"/jobs/{job}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert {answer.json()["code"] for answer in answers} == {"not_found"}


async def test_an_unknown_order_is_refused_without_amplification(gateway):
    job = (await sent(gateway, lines(1))).json()["id"]
    answer = await gateway.client.get(f"/jobs/{job}/results", params={"order": "x" * 5000})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("order: ")
    assert len(answer.content) < 1000


@pytest.mark.parametrize("kind", ["text/plain", "", "multipart/form-data; boundary=x"])
async def test_another_kind_of_body_is_refused(kind: str, gateway):
    answer = await gateway.client.post("/jobs", content=lines(1), headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "limits", [{"limits": {"batch_bytes": 2000}}, {"jobs": {"lines": 99}}], ids=["bytes", "lines"]
)
async def test_too_large_a_job_is_refused_and_leaves_nothing(
    limits: dict[str, Any], start_gateway, redis_url
):
    gateway = await start_gateway(**limits)
    answer = await sent(gateway, lines(100))
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    connection = Connection(redis_url)
    assert await connection.redis.keys("*job*") == []
    await connection.close()


async def test_a_line_that_is_too_long_costs_that_line_alone(start_gateway, worker):
    gateway = await start_gateway(limits={"body_bytes": 1024})
    job = (await sent(gateway, lines(1) + b"x" * 1025 + b"\n" + lines(1))).json()["id"]
    async with worker(gateway):
        found = await results(gateway, job)
    assert [result.get("status") for result in found] == ["ok", None, "ok"]
    assert found[1]["error"]["code"] == "payload_too_large"


async def test_a_stopping_gateway_takes_no_job(gateway):
    gateway.parts.admission.draining = True
    answer = await sent(gateway, lines(1))
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")


async def test_an_upload_that_breaks_off_leaves_nothing(start_gateway, redis_url, until):
    gateway = await start_gateway(listening=True)
    connection = Connection(redis_url)

    async def broken() -> AsyncIterator[bytes]:
        yield lines(100)
        while not await connection.redis.keys("*:lines:0"):
            await asyncio.sleep(0.01)
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, httpx.TransportError)):
        await sent(gateway, broken())
    while await connection.redis.keys("*job*"):
        await asyncio.sleep(0.01)
    await connection.close()


async def test_without_its_store_a_job_is_refused_and_a_score_is_not(start_gateway):
    gateway = await start_gateway(redis_url="redis://127.0.0.1:1")
    answer = await sent(gateway, lines(1))
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert (await gateway.score()).status_code == 200


async def test_a_job_may_name_a_source_where_the_operator_allows(start_gateway, worker, tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(lines(70))
    gateway = await start_gateway(job_sources=(f"file://{tmp_path}",))
    answer = await gateway.client.post("/jobs", json={"source": f"file://{tmp_path}/pairs.jsonl"})
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    async with worker(gateway):
        found = await results(gateway, answer.json()["id"])
    assert [result["id"] for result in found] == [f"n{n}" for n in range(1, 71)]
    assert (await state(gateway, answer.json()["id"]))["counts"]["total"] == 70


@pytest.mark.parametrize(
    "asked",
    [
        {"source": "file:///etc/passwd"},
        {"source": "file://{place}/../pairs.jsonl"},
        {"source": "http://169.254.169.254/latest.jsonl"},
        {"source": "file://{place}/absent.jsonl"},
        {"source": ""},
        {"source": "file://{place}/pairs.jsonl", "rows": 5},
        {"sources": []},
        [],
    ],
)
async def test_any_other_source_is_refused_at_once(asked: Any, start_gateway, tmp_path, redis_url):
    (tmp_path / "pairs.jsonl").write_bytes(lines(1))
    gateway = await start_gateway(job_sources=(f"file://{tmp_path}",))
    if isinstance(asked, dict) and "source" in asked:
        asked = asked | {"source": asked["source"].format(place=tmp_path)}
    answer = await gateway.client.post("/jobs", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert str(tmp_path) not in answer.text
    connection = Connection(redis_url)
    assert await connection.redis.keys("*job*") == []
    await connection.close()


async def test_without_listed_places_no_source_is_read(gateway, tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(lines(1))
    answer = await gateway.client.post("/jobs", json={"source": f"file://{tmp_path}/pairs.jsonl"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
