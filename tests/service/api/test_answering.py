from __future__ import annotations

import asyncio

import pytest
import redis

pytestmark = pytest.mark.anyio

BODY = {"question": "How many?", "responses": ["One.", "Two."], "cache": "bypass"}


async def ask(gateway, key: str, path: str = "/score", **changes):
    return await gateway.client.post(path, json=BODY | changes, headers={"idempotency-key": key})


async def test_the_same_request_under_the_same_key_gets_the_same_answer(gateway):
    first, again = await ask(gateway, "k"), await ask(gateway, "k")
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["server-timing"] == first.headers["server-timing"]
    assert len(gateway.engine.requests) == 1


async def test_without_a_key_or_under_another_it_is_judged_again(gateway):
    ids = {(await ask(gateway, key)).json()["id"] for key in ("a", "b")}
    ids.add((await gateway.client.post("/score", json=BODY)).json()["id"])
    assert len(ids) == 3
    assert len(gateway.engine.requests) == 3


@pytest.mark.parametrize("path", ["/rubric", "/rank"])
async def test_every_way_of_judging_takes_a_key(path: str, gateway):
    body = {name: value for name, value in BODY.items() if path == "/rank" or name != "cache"}
    answers = [
        await gateway.client.post(path, json=body, headers={"idempotency-key": "k"})
        for _ in range(2)
    ]
    assert answers[0].status_code == 200
    assert answers[0].content == answers[1].content


async def test_another_request_under_the_same_key_is_refused(gateway):
    await ask(gateway, "k")
    for path, changes in (("/score", {"question": "Why?"}), ("/rank", {})):
        answer = await ask(gateway, "k", path, **changes)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["detail"] == "this Idempotency-Key was used for another request"


@pytest.fixture
async def two_releases(start_gateway, bare_release: str):
    return await start_gateway(images=None, rollout={"release": bare_release}, seconds=0.1)


async def ask_release(gateway, release: str):
    headers = {"idempotency-key": "k", "x-proxy-grm-release": release}
    return await gateway.client.post("/score", json=BODY, headers=headers)


async def test_another_release_under_the_same_key_is_refused(two_releases):
    first = await ask_release(two_releases, "tiny")
    other = await ask_release(two_releases, "small")
    assert first.json()["release"]["name"] == "tiny"
    assert (other.status_code, other.json()["code"]) == (422, "invalid_request")
    assert other.json()["detail"] == "this Idempotency-Key was used with another release"
    by_fingerprint = await ask_release(two_releases, first.json()["release"]["fingerprint"])
    unnamed = await ask(two_releases, "k")
    assert by_fingerprint.content == unnamed.content == first.content


async def test_who_names_no_release_gets_the_first_answer_again_whatever_is_served_since(
    two_releases,
):
    first = await ask_release(two_releases, "small")
    again = await ask(two_releases, "k")
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"


async def test_no_release_is_given_what_another_makes_at_the_same_time(two_releases):
    answers = await asyncio.gather(*(ask_release(two_releases, one) for one in ("tiny", "small")))
    assert sorted(answer.status_code for answer in answers) == [200, 422]
    for asked, answer in zip(("tiny", "small"), answers, strict=True):
        assert answer.status_code == 422 or answer.json()["release"]["name"] == asked


async def test_another_request_at_the_same_time_has_its_own_errors_and_its_own_time(start_gateway):
    gateway = await start_gateway(seconds=0.3)
    bad, late, good = await asyncio.gather(
        ask(gateway, "k", images=[{"data": "no picture"}]),
        ask(gateway, "k", timeout_s=0.1),
        ask(gateway, "k", timeout_s=30),
    )
    codes = [answer.json().get("code") for answer in (bad, late, good)]
    assert codes == ["image_rejected", "deadline_exceeded", None]
    assert good.json()["status"] == "ok"


async def test_of_two_requests_at_the_same_time_under_one_key_the_slower_is_refused(start_gateway):
    gateway = await start_gateway(seconds=0.2)
    first = asyncio.create_task(ask(gateway, "k"))
    await asyncio.sleep(0.1)
    second = await ask(gateway, "k", question="Why?")
    assert (await first).status_code == 200
    assert (second.status_code, second.json()["code"]) == (422, "invalid_request")
    assert (await ask(gateway, "k")).content == (await first).content


async def test_a_request_that_comes_again_while_it_is_in_work_waits_for_its_answer(start_gateway):
    gateway = await start_gateway(seconds=0.2)
    answers = await asyncio.gather(*(ask(gateway, "k") for _ in range(3)))
    assert len({answer.content for answer in answers}) == 1
    assert len(gateway.engine.requests) == 1


async def test_gateways_on_one_redis_share_the_answers(start_gateway):
    gateways = [await start_gateway(seconds=0.2) for _ in range(2)]
    answers = await asyncio.gather(*(ask(gateway, "k") for gateway in gateways))
    assert len({answer.content for answer in answers}) == 1
    assert sum(len(gateway.engine.requests) for gateway in gateways) == 1


async def test_an_error_is_not_kept(gateway):
    wrong = await ask(gateway, "k", rubric={"id": "rub_" + "0" * 24})
    assert wrong.status_code == 404
    assert (await ask(gateway, "k")).status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_key_that_is_none_is_refused(key: str, gateway):
    answer = await ask(gateway, key)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_without_redis_it_is_judged_again(start_gateway, tmp_path):
    gateway = await start_gateway(redis_url=f"unix://{tmp_path}/no.socket")
    answers = [await ask(gateway, "k") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_identical_questions_at_the_same_time_are_judged_once(start_gateway):
    gateway = await start_gateway(seconds=0.2)
    body = {"question": "How many?", "responses": ["One.", "Two."]}
    answers = await asyncio.gather(*(gateway.client.post("/score", json=body) for _ in range(4)))
    told = [answer.json() for answer in answers]
    assert len({one["id"] for one in told}) == 4
    assert len({one["evaluation"] for one in told}) == 1
    assert sorted(one["cached"] for one in told) == [False, True, True, True]
    assert sum(one["usage"]["prompt_tokens"] > 0 for one in told) == 1
    assert len(gateway.engine.requests) == 1


@pytest.mark.parametrize("spoilt", ["no json", "[]", "{}", '{"asked": 5}', "null"])
async def test_a_kept_answer_that_cannot_be_read_is_judged_again(
    spoilt: str, gateway, redis_url: str
):
    await ask(gateway, "k")
    with redis.Redis.from_url(redis_url) as client:
        [name] = client.keys("proxy_grm:answer:default:*")
        client.set(name, spoilt)
    answer = await ask(gateway, "k")
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers
