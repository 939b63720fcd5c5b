from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import structlog
from PIL import Image
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from models.comparison import JudgeImage
from models.prompts import FilledPrompt
from models.release import Release
from service.engines import Generation, GenerationRequest
from service.engines.on_demand import OnDemandEngine
from service.engines.remote import RemoteEngine, Servers
from service.errors import ContextExceeded, EngineUnavailable
from service.metrics import Metrics
from service.tenancy import acting_for

from .conftest import FakeVllm, network

pytestmark = pytest.mark.anyio
NAME = "proxy-grm/small/judge/0123"


def picture(name: str, color: str = "teal") -> JudgeImage:
    return JudgeImage(Image.new("RGB", (56, 28), color), name)


def request(*user: str | JudgeImage, max_tokens: int = 20, **changes: Any) -> GenerationRequest:
    return GenerationRequest(FilledPrompt("Judge.", user or ("Which?",)), max_tokens, **changes)


@pytest.fixture
def servers(release: Release) -> Callable[..., dict[str, FakeVllm]]:
    return lambda *names, **options: {name: FakeVllm(release.judge, **options) for name in names}


@pytest.fixture
def remote(release: Release, until: Any) -> Callable[..., Any]:
    @asynccontextmanager
    async def run(servers: dict[str, FakeVllm], **options: Any) -> AsyncGenerator[RemoteEngine]:
        engine = RemoteEngine(
            release.judge,
            Servers(tuple(f"http://{name}:8000" for name in servers), NAME),
            Metrics(CollectorRegistry()),
            transport=network(servers),
            **{"look_every_s": 0.02} | options,
        )
        assert engine.state == "stopped"
        await engine.start()
        await until(lambda: engine.state != "starting")
        for server in servers.values():
            server.asked.clear()
        yield engine
        await engine.stop()
        assert engine.state == "stopped"

    return run


async def test_a_generation_says_what_one_in_process_says(servers, remote):
    found = servers("a", script=lambda _: "<answer>2</answer>")
    async with remote(found) as engine:
        asked = request("Which?", prefill="<rubric>", read_labels=True, stop=("</answer>",))
        generation = await engine.generate(asked)
    assert generation == Generation(
        text="<answer>2</answer>",
        truncated=False,
        prompt_tokens=len(found["a"].tokens(found["a"].asked[0])),
        completion_tokens=18,
        cached_tokens=7,
        labels=generation.labels,
        surprisal=0.1,  # of the tag; the fake's tokens are all alike
    )
    assert generation.labels is not None
    assert (generation.labels.first, generation.labels.second) == (-0.5, -1.5)


async def test_a_server_is_asked_for_what_the_request_says_and_for_nothing_of_its_own(
    servers, remote
):
    found = servers("a")
    async with remote(found) as engine:
        await engine.generate(
            request(
                picture("id-of-the-picture", "red"),
                "Which?",
                prefill="So: ",
                grammar="a+",
                stop=("x",),
                temperature=0.7,
                seed=5,
                priority="batch",
            )
        )
    [body] = found["a"].asked
    assert len(set(body.pop("logprob_token_ids"))) == 2
    system, user, assistant = body.pop("messages")
    assert system == {"role": "system", "content": "Judge."}
    assert assistant == {"role": "assistant", "content": "So: "}
    image, text = user["content"]
    assert text == {"type": "text", "text": "Which?"}
    assert image["uuid"] == "id-of-the-picture"
    png = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    seen = Image.open(io.BytesIO(png))
    assert (seen.mode, seen.size, seen.getpixel((5, 5))) == ("RGB", (56, 28), (255, 0, 0))
    assert body == {
        "model": "served",
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_completion_tokens": 20,
        "temperature": 0.7,
        "seed": 5,
        "stop": ["x"],
        "include_stop_str_in_output": True,
        "priority": 10,
        "cache_salt": "default",
        "structured_outputs": {"regex": "a+"},
        "logprobs": True,
        "return_tokens_as_token_ids": True,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


async def test_tenants_share_nothing_that_a_server_caches(servers, remote):
    found = servers("a")
    async with remote(found) as engine:
        for tenant in ("a", "b"):
            with acting_for(tenant):
                await engine.generate(request(picture("p")))
    assert [body["cache_salt"] for body in found["a"].asked] == ["a", "b"]


async def test_without_a_label_in_the_text_there_are_no_log_probabilities(servers, remote):
    async with remote(servers("a", script=lambda _: "hm")) as engine:
        assert (await engine.generate(request(read_labels=True))).labels is None


async def test_a_verdict_alone_surprises_nobody(servers, remote):
    async with remote(servers("a", script=lambda _: "2")) as engine:
        found = await engine.generate(request(max_tokens=1, read_labels=True))
    assert found.labels is not None
    assert found.surprisal is None


async def test_where_no_verdict_is_asked_for_every_token_counts(servers, remote):
    async with remote(servers("a", script=lambda _: "<rubric>1</rubric>")) as engine:
        assert (await engine.generate(request())).surprisal == 0.1


async def test_it_is_ready_only_after_a_forward_pass_with_a_priority(servers, release):
    found = servers("a")
    found["a"].go.clear()
    engine = RemoteEngine(
        release.judge,
        Servers(("http://a",), NAME),
        Metrics(CollectorRegistry()),
        transport=network(found),
        look_every_s=0.01,
    )
    await engine.start()
    while not found["a"].running:
        await asyncio.sleep(0.01)
    assert engine.state == "starting"
    assert found["a"].asked[0]["priority"] == 10
    with pytest.raises(EngineUnavailable, match="starting"):
        await engine.generate(request())
    found["a"].go.set()
    while engine.state != "ready":
        await asyncio.sleep(0.01)
    await engine.stop()


async def test_a_server_that_cannot_serve_the_release_is_refused_and_says_why(
    servers, remote, until
):
    found = servers("short")
    found["short"].context = 100
    async with remote(found) as engine:
        assert engine.state == "down"
        await until(lambda: engine.refused is not None)
        assert "context of 100 tokens" in str(engine.refused)
        with pytest.raises(EngineUnavailable):
            await engine.generate(request())


async def test_one_that_was_stopped_begins_anew_with_servers_that_were_away(servers, remote, until):
    found = servers("a", "short")
    found["a"].up, found["short"].context = False, 100
    async with remote(found) as engine:
        await until(lambda: {one.state for one in engine.replicas} == {"down", "refused"})
        await engine.stop()
        found["a"].up, found["short"].context = True, 10**6
        await engine.start()
        assert engine.state == "starting"
        await until(lambda: all(one.state == "ready" for one in engine.replicas))
        assert (await engine.generate(request())).text == "1"


async def test_one_that_is_started_on_demand_finds_servers_that_were_away_at_first(
    servers, release
):
    found = servers("a")
    found["a"].up = False
    remote = RemoteEngine(
        release.judge,
        Servers(("http://a",), NAME),
        Metrics(CollectorRegistry()),
        transport=network(found),
    )
    engine = OnDemandEngine(remote)
    with pytest.raises(EngineUnavailable, match="did not start"):
        await engine.generate(request())
    found["a"].up = True
    assert (await engine.generate(request())).text == "1"
    await engine.stop()


async def test_a_server_that_answers_oddly_is_looked_at_again(servers, release, until):
    found, odd = servers("a"), 0

    async def send(sent: httpx.Request) -> httpx.Response:
        nonlocal odd
        if sent.url.path == "/v1/models" and odd < 3:
            odd += 1
            return httpx.Response(200, json=[{"data": []}, {}, []][odd - 1])
        return await found["a"](sent)

    engine = RemoteEngine(
        release.judge,
        Servers(("http://a",), NAME),
        Metrics(CollectorRegistry()),
        transport=httpx.MockTransport(send),
        look_every_s=0.01,
    )
    with structlog.testing.capture_logs() as logged:
        await engine.start()
        await until(lambda: engine.state == "ready")
    assert [one["event"] for one in logged if one["log_level"] == "error"] == [
        "unforeseen error at a look at an engine replica"
    ] * 3
    assert (await engine.generate(request())).text == "1"
    await engine.stop()


@pytest.mark.parametrize(
    ("served", "usable"),
    [(NAME, True), ("/weights/judge", True), ("proxy-grm/small/judge/4567", False)],
)
async def test_a_server_of_ours_with_the_weights_of_another_release_is_refused(
    served: str, usable: bool, servers, remote, until
):
    found = servers("a")
    found["a"].name = served
    async with remote(found) as engine:
        await until(lambda: engine.state == "ready" or engine.refused is not None)
        assert (engine.refused is None) == usable
        if usable:
            await engine.generate(request())
            assert found["a"].asked[-1]["model"] == served
        else:
            assert f"the server has {served}, and not {NAME}" in str(engine.refused)


async def test_a_refused_server_beside_a_good_one_only_gets_nothing_to_do(servers, remote, until):
    found = servers("short", "good")
    found["short"].context = 100
    async with remote(found) as engine:
        await until(lambda: engine.state == "ready")
        for number in range(20):
            await engine.generate(request(picture(f"p{number}")))
        assert engine.refused is None
    assert (len(found["short"].asked), len(found["good"].asked)) == (0, 20)


async def test_requests_about_a_picture_go_to_the_same_server_and_pictures_spread(
    servers, remote, until
):
    found = servers("a", "b", "c")
    async with remote_ready(remote, found, until) as engine:
        for server in found.values():
            server.go.set()
        for number in range(60):
            await engine.generate(request(picture(f"p{number % 20}"), f"q{number}"))
    places: dict[str, set[str]] = {}
    for name, server in found.items():
        for body in server.asked:
            places.setdefault(body["messages"][1]["content"][0]["uuid"], set()).add(name)
    assert len(places) == 20
    assert all(len(names) == 1 for names in places.values())
    assert {name for names in places.values() for name in names} == {"a", "b", "c"}


async def test_a_picture_that_everybody_asks_about_does_not_queue_in_one_place(
    servers, remote, until
):
    found = servers("a", "b")
    for server in found.values():
        server.go.clear()
    async with remote_ready(remote, found, until) as engine:
        works = [asyncio.create_task(engine.generate(request(picture("p")))) for _ in range(60)]
        await until(lambda: sum(server.running for server in found.values()) == 60)
        assert min(server.running for server in found.values()) > 0
        for server in found.values():
            server.go.set()
        await asyncio.gather(*works)


@asynccontextmanager
async def remote_ready(
    remote: Any, found: dict[str, FakeVllm], until: Any
) -> AsyncGenerator[RemoteEngine]:
    """An engine whose servers have all been seen, and answer nothing from then on."""
    for server in found.values():
        server.go.set()
    async with remote(found) as engine:
        await until(lambda: all(one.state == "ready" for one in engine.replicas))
        for server in found.values():
            server.asked.clear()
            server.go.clear()
        yield engine


async def test_a_request_that_loses_its_server_is_tried_once_on_another(servers, remote, until):
    found = servers("a", "b")
    async with remote_ready(remote, found, until) as engine:
        work = asyncio.create_task(engine.generate(request(picture("p"))))
        await until(lambda: any(server.running for server in found.values()))
        [dying] = [server for server in found.values() if server.running]
        [other] = [server for server in found.values() if not server.running]
        other.go.set()
        dying.up = False
        dying.go.set()
        assert (await work).text == "1"
        assert len(other.asked) == 1
        assert (await engine.generate(request(picture("p")))).text == "1"
        assert len(dying.asked) == 1
        assert engine.state == "ready"
        assert counted(engine, "engine_deaths") == 1


async def test_when_no_server_is_left_it_says_so_and_comes_back_with_them(servers, remote, until):
    found = servers("a", "b")
    async with remote(found) as engine:
        await until(lambda: all(one.state == "ready" for one in engine.replicas))
        for server in found.values():
            server.up = False
        with pytest.raises(EngineUnavailable, match="failed on this request"):
            await engine.generate(request())
        with pytest.raises(EngineUnavailable, match="down"):
            await engine.generate(request())
        assert engine.state == "down"
        found["b"].up = True
        await until(lambda: engine.state == "ready")
        assert (await engine.generate(request())).text == "1"
        assert found["a"].asked == []


async def test_a_request_is_tried_on_two_servers_and_no_more(servers, remote, until):
    found = servers("a", "b", "c")
    async with remote_ready(remote, found, until) as engine:
        for server in found.values():
            server.failing = httpx.Response(500, text="CUDA error")
            server.go.set()
        with pytest.raises(EngineUnavailable) as failed:
            await engine.generate(request())
    assert "CUDA" not in failed.value.detail
    assert sorted(len(server.asked) for server in found.values()) == [0, 1, 1]


async def test_a_server_that_says_it_is_well_and_does_nothing_loses_what_it_has_to_another(
    servers, remote, until
):
    found = servers("a", "b")
    async with remote(found, patience_s=0.05) as engine:
        await until(lambda: all(one.state == "ready" for one in engine.replicas))
        for server in found.values():
            server.go.clear()
        asking = asyncio.create_task(engine.generate(request(picture("x"), "Which?")))
        await until(lambda: any(server.running for server in found.values()))
        [hanging] = [server for server in found.values() if server.running]
        [other] = [server for server in found.values() if server is not hanging]
        other.go.set()
        assert (await asking).text == "1"
        assert counted(engine, "engine_retries") == 1
        assert sorted(one.state for one in engine.replicas) == ["down", "ready"]
        hanging.go.set()
        await until(lambda: all(one.state == "ready" for one in engine.replicas))


async def test_a_server_whose_work_takes_long_keeps_it(servers, remote, until):
    found = servers("a")
    async with remote(found, patience_s=0.02) as engine:
        asked = found["a"].asked
        release = asyncio.Event()

        async def held(body: dict[str, Any]) -> httpx.Response:
            asked.append(body)
            if body["max_completion_tokens"] > 1:
                await release.wait()
            return httpx.Response(200, json=found["a"].answer(body))

        found["a"].completed = held
        asking = asyncio.create_task(engine.generate(request(max_tokens=20)))
        await until(lambda: len(asked) >= 3)  # it, and two probes
        release.set()
        assert (await asking).text == "1"
        assert engine.state == "ready"


async def test_a_server_that_hangs_loses_what_it_has_to_another(servers, remote, until):
    found = servers("a", "b")
    async with remote_ready(remote, found, until) as engine:
        work = asyncio.create_task(engine.generate(request(picture("p"))))
        await until(lambda: any(server.running for server in found.values()))
        [hanging] = [server for server in found.values() if server.running]
        [other] = [server for server in found.values() if not server.running]
        other.go.set()
        hanging.healthy = False
        assert (await work).text == "1"
        assert (hanging.cancelled, len(other.asked)) == (1, 1)


async def test_a_caller_that_goes_closes_the_connection_and_nothing_is_tried_again(
    servers, remote, until
):
    found = servers("a", "b")
    async with remote_ready(remote, found, until) as engine:
        works = [asyncio.create_task(engine.generate(request(f"{n}"))) for n in range(10)]
        await until(lambda: sum(server.running for server in found.values()) == 10)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await until(lambda: not any(server.running for server in found.values()))
        assert sum(server.cancelled for server in found.values()) == 10
        assert sum(len(server.asked) for server in found.values()) == 10
        assert all(one.load == 0 for one in engine.replicas)


@pytest.mark.parametrize(
    ("status", "error", "retry_after_s"),
    [(400, ContextExceeded, None), (503, EngineUnavailable, 1), (429, EngineUnavailable, 1)],
)
async def test_what_a_server_refuses_is_refused_without_its_words(
    status: int, error: type[Exception], retry_after_s: int | None, servers, remote, until
):
    found = servers("a")
    async with remote(found) as engine:
        await until(lambda: engine.state == "ready")
        found["a"].failing = httpx.Response(status, json={"error": {"message": "internals"}})
        with pytest.raises(error) as failed:
            await engine.generate(request())
    assert "internals" not in str(failed.value)
    assert failed.value.retry_after_s == retry_after_s  # pyright: ignore


async def test_an_answer_that_ran_out_of_tokens_is_truncated(servers, remote):
    found = servers("a", script=lambda body: "x" * min(16, body["max_completion_tokens"]))
    async with remote(found) as engine:
        found["a"].finish = "length"
        assert (await engine.generate(request(max_tokens=16))).truncated
        assert not (await engine.generate(request(max_tokens=1))).truncated
        found["a"].script = lambda _: "x" * 15
        with pytest.raises(ContextExceeded):
            await engine.generate(request(max_tokens=500))


async def test_an_answer_that_the_server_gave_up_is_asked_of_another(servers, remote, until):
    found = servers("a", "b")
    async with remote_ready(remote, found, until) as engine:
        for server in found.values():
            server.go.set()
        found["a"].finish = "abort"
        for number in range(10):
            assert (await engine.generate(request(picture(f"p{number}")))).text == "1"
        assert found["a"].asked
        assert counted(engine, "engine_retries") == len(found["a"].asked)
        found["b"].finish = "abort"
        with pytest.raises(EngineUnavailable, match="failed on this request"):
            await engine.generate(request())


async def test_a_server_that_stops_listening_finishes_what_it_has(servers, remote, until):
    found = servers("a", "b")
    async with remote_ready(remote, found, until) as engine:
        work = asyncio.create_task(engine.generate(request(picture("p"))))
        await until(lambda: any(server.running for server in found.values()))
        [leaving] = [server for server in found.values() if server.running]
        [other] = [server for server in found.values() if not server.running]
        leaving.listening = False
        await until(lambda: [one.state for one in engine.replicas].count("down") == 1)
        other.go.set()
        assert (await engine.generate(request(picture("p")))).text == "1"
        assert (len(other.asked), leaving.cancelled) == (1, 0)
        leaving.go.set()
        assert (await work).text == "1"
        assert (len(other.asked), counted(engine, "engine_retries")) == (1, 0)
        leaving.listening = True
        await until(lambda: all(one.state == "ready" for one in engine.replicas))


async def test_a_server_with_too_much_to_do_is_passed_over_and_still_used(servers, remote, until):
    found = servers("a", "b")
    async with remote_ready(remote, found, until) as engine:
        for server in found.values():
            server.go.set()
        found["a"].failing = httpx.Response(503, text="queue full")
        for number in range(20):
            assert (await engine.generate(request(picture(f"p{number}")))).text == "1"
        assert len(found["a"].asked) > 3
        assert all(one.state == "ready" for one in engine.replicas)
        found["b"].failing = httpx.Response(503, text="queue full")
        with pytest.raises(EngineUnavailable, match="queue is full") as refused:
            await engine.generate(request())
        assert refused.value.retry_after_s == 1
        assert counted(engine, "engine_deaths") == 0


async def test_a_server_that_fails_again_and_again_must_pass_the_checks_again(
    servers, remote, until
):
    found = servers("a")
    async with remote(found) as engine:
        await until(lambda: engine.state == "ready")
        found["a"].failing = httpx.Response(500, text="out of memory")
        for _ in range(3):
            assert engine.state == "ready"
            with pytest.raises(EngineUnavailable, match="failed on this request"):
                await engine.generate(request())
        assert engine.state == "down"
        failed = len(found["a"].asked)
        await until(lambda: len(found["a"].asked) > failed + 1)
        assert engine.state == "down"
        found["a"].failing = None
        await until(lambda: engine.state == "ready")
        assert (await engine.generate(request())).text == "1"


async def test_a_server_with_many_requests_dies_once(servers, remote, until):
    found = servers("a", "b")
    async with remote_ready(remote, found, until) as engine:
        works = [
            asyncio.create_task(engine.generate(request(picture(f"p{number}"))))
            for number in range(40)
        ]
        await until(lambda: sum(server.running for server in found.values()) == 40)
        lost = found["a"].running
        found["a"].up = False
        for server in found.values():
            server.go.set()
        assert {one.text for one in await asyncio.gather(*works)} == {"1"}
        assert counted(engine, "engine_deaths") == 1
        assert counted(engine, "engine_retries") == lost > 0


def counted(engine: RemoteEngine, name: str) -> float:
    families = engine.metrics.registry.collect()
    (family,) = [one for one in families if one.name == f"proxy_grm_{name}"]
    return sum(one.value for one in family.samples if one.name.endswith("_total"))


async def test_the_servers_key_goes_with_every_request(servers, release, until):
    found, keys = servers("a"), set[str | None]()

    async def send(sent: httpx.Request) -> httpx.Response:
        keys.add(sent.headers.get("authorization"))
        return await found["a"](sent)

    engine = RemoteEngine(
        release.judge,
        Servers(("http://a",), NAME, SecretStr("key")),
        Metrics(CollectorRegistry()),
        transport=httpx.MockTransport(send),
    )
    await engine.start()
    await until(lambda: engine.state == "ready")
    await engine.generate(request())
    await engine.stop()
    assert keys == {"Bearer key"}
