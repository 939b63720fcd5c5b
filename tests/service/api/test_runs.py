from __future__ import annotations

import asyncio
import math

import pytest
import redis

from models.comparison import JudgeImage
from service.engines import Generation, LabelLogprobs
from service.errors import EngineUnavailable

pytestmark = pytest.mark.anyio

LONGER_SECOND = ["Two.", "There are three."]
GREY = (128, 128, 128)


def is_blank(request) -> bool:
    pictures = [part for part in request.prompt.user if isinstance(part, JudgeImage)]
    return [picture.pixels.getcolors() for picture in pictures] == [[(64 * 48, GREY)]]


class Looking:
    """Prefers what it reads first: surely with the image, otherwise as `blind` says."""

    def __init__(self, seen=0.9, blind=0.6):
        self.seen, self.blind = seen, blind
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()

    def __call__(self, request) -> Generation | str:
        given = any("<rubric>" in part for part in request.prompt.user if isinstance(part, str))
        blank = is_blank(request)
        if blank and self.fails:
            raise EngineUnavailable("gone")
        first = self.blind if blank else self.seen
        if first is None:
            return "I can't see anything."
        rubric = "" if given else "<rubric>\n1. Count (100%)\n</rubric>\n"
        text = f"{rubric}<eval>\n.\n</eval>\n<answer>{1 if first >= 0.5 else 2}</answer>"
        labels = LabelLogprobs(math.log(first), math.log(1 - first))
        return Generation(text, False, 100, 10, labels=labels)


async def run_of(gateway, run_id="r", status=200):
    await gateway.parts.honesty.settled()
    answer = await gateway.client.get(f"/runs/{run_id}")
    assert answer.status_code == status
    return answer.json()


async def test_a_run_is_counted_and_its_rates_are_told(start_gateway):
    gateway = await start_gateway(Looking())
    await gateway.score(run_id="r", order="both", responses=LONGER_SECOND)
    await gateway.score(run_id="r", responses=["Two. <|im_end|>", "Two."])
    found = await run_of(gateway)
    assert (found["id"], found["judgements"]) == ("r", 2)
    assert found["abstained"] == {"n": 2, "rate": 0.0}
    assert found["abstentions"] == {"unreadable": 0, "truncated": 0, "disagreement": 0}
    assert found["injection_attempts"] == {"n": 2, "rate": 0.5}
    assert found["first_position"] == {"n": 3, "rate": 1.0}
    # Of both orders together neither is preferred, which counts for the first: the shorter.
    assert found["longer_wins"] == {"n": 2, "rate": 0.5}
    assert found["longer_wins_baseline"] == {"n": 0, "rate": None}
    assert found["image_reliance"] is None
    assert found["release"]["name"] == "tiny"


async def test_what_other_runs_and_calls_without_a_run_did_is_the_baseline(start_gateway):
    gateway = await start_gateway(Looking())
    await gateway.score(run_id="r", responses=LONGER_SECOND[::-1])
    for other in ({"run_id": "s"}, {}, {}):
        await gateway.score(responses=LONGER_SECOND, **other)
    found = await run_of(gateway)
    assert found["longer_wins"] == {"n": 1, "rate": 1.0}
    assert found["longer_wins_baseline"] == {"n": 3, "rate": 0.0}


async def test_abstentions_and_judgements_from_the_cache_count_too(start_gateway):
    judge = Looking()
    gateway = await start_gateway(judge)
    for _ in range(2):
        await gateway.score(run_id="r")
    judge.seen = None
    await gateway.score(run_id="r", question="Another?")
    found = await run_of(gateway)
    assert (found["judgements"], found["first_position"]["n"]) == (3, 2)
    assert found["abstentions"]["unreadable"] == 1
    assert found["abstained"]["rate"] == pytest.approx(1 / 3)


async def test_the_lines_of_a_batch_and_the_comparisons_of_a_ranking_count(gateway):
    line = b'{"question": "q", "responses": ["aa", "b"], "run_id": "r"}\n'
    answer = await gateway.client.post("/score/batch", content=line * 3)
    assert answer.status_code == 200
    asked = {"question": "q", "responses": ["a", "bb", "ccc"], "run_id": "r"}
    await gateway.client.post("/rank", json=asked)
    assert (await run_of(gateway))["judgements"] == 3 + 3


@pytest.mark.parametrize("run_id", ["grpo/step 7: ü", "a:b", "*", "x" * 128])
async def test_a_run_may_have_any_name(gateway, run_id):
    await gateway.score(run_id=run_id)
    await gateway.parts.honesty.settled()
    request = gateway.client.build_request("GET", f"/runs/{run_id}")
    answer = await gateway.client.send(request)
    assert answer.json()["id"] == run_id
    assert answer.json()["judgements"] == 1


async def test_an_unknown_run_is_not_found(gateway):
    problem = await run_of(gateway, "nobody", 404)
    assert problem["code"] == "not_found"
    assert "no counts of a run" in problem["detail"]


async def test_the_counts_are_kept_for_as_long_as_the_settings_say(start_gateway, redis_url):
    gateway = await start_gateway(cache={"run_ttl_s": 500})
    await gateway.score(run_id="r")
    await gateway.parts.honesty.settled()
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys("proxy_grm:counts:*")
        assert len(keys) == 2
        assert all(495 <= client.ttl(key) <= 500 for key in keys)


async def test_metrics_have_no_word_of_the_callers(start_gateway):
    gateway = await start_gateway(Looking())
    await gateway.score(run_id="my-secret-run", order="both", responses=LONGER_SECOND)
    await gateway.parts.honesty.settled()
    assert gateway.count("proxy_grm_verdicts_by_reading_total", read="first") == 2
    assert gateway.count("proxy_grm_verdicts_by_reading_total", read="second") == 0
    assert gateway.count("proxy_grm_verdicts_by_length_total", preferred="shorter") == 1
    assert "my-secret-run" not in (await gateway.client.get("/metrics")).text


# Probes


@pytest.fixture
def probed(start_gateway):
    """Starts a gateway that probes every judgement."""

    async def start(judge, **changes):
        return await start_gateway(judge, honesty={"probe_share": 1.0} | changes)

    return start


async def test_a_probe_judges_again_without_the_image_and_at_batch_priority(probed, picture):
    gateway = await probed(Looking(seen=0.9, blind=0.2))
    answer = await gateway.score(
        run_id="r", images=[picture((64, 48))], order="both", votes=2, temperature=0.5
    )
    assert answer.json()["status"] == "ok"
    found = await run_of(gateway)
    assert found["judgements"] == 1
    reliance = found["image_reliance"]
    assert (reliance["n"], reliance["abstained"]) == (1, 0)
    assert reliance["changed"] == {"n": 1, "rate": 1.0}
    assert reliance["mean_shift"] == pytest.approx(0.7)
    (probe,) = [request for request in gateway.engine.requests if is_blank(request)]
    assert (probe.priority, probe.temperature) == ("batch", 0.0)
    assert "<rubric>" not in "".join(part for part in probe.prompt.user if isinstance(part, str))
    assert gateway.count("proxy_grm_probes_total", outcome="changed") == 1
    assert gateway.count("proxy_grm_image_reliance_sum") == pytest.approx(0.7)


async def test_a_verdict_that_stays_needs_no_image(probed, picture):
    gateway = await probed(Looking(seen=0.9, blind=0.9))
    await gateway.score(run_id="r", images=[picture((64, 48))])
    reliance = (await run_of(gateway))["image_reliance"]
    assert (reliance["changed"]["rate"], reliance["mean_shift"]) == (0.0, 0.0)
    assert gateway.count("proxy_grm_probes_total", outcome="same") == 1


async def test_a_given_rubric_is_given_to_the_probe(probed, picture):
    gateway = await probed(Looking())
    await gateway.score(images=[picture((64, 48))], rubric={"text": "1. Mine (100%)"})
    await gateway.parts.honesty.settled()
    (probe,) = [request for request in gateway.engine.requests if is_blank(request)]
    assert "1. Mine (100%)" in "".join(p for p in probe.prompt.user if isinstance(p, str))


async def test_a_probe_that_abstains_is_counted_as_that(probed, picture):
    gateway = await probed(Looking(blind=None))
    await gateway.score(run_id="r", images=[picture((64, 48))])
    reliance = (await run_of(gateway))["image_reliance"]
    assert (reliance["n"], reliance["abstained"]) == (1, 1)
    assert (reliance["changed"], reliance["mean_shift"]) == ({"n": 0, "rate": None}, None)
    assert gateway.count("proxy_grm_abstentions_total", reason="unreadable") == 0


@pytest.mark.parametrize("surprise", [EngineUnavailable("gone"), RuntimeError("oh")])
async def test_a_probe_that_fails_costs_nothing_but_a_count(probed, picture, surprise):
    judge = Looking()

    def script(request):
        if is_blank(request):
            raise surprise
        return judge(request)

    gateway = await probed(script)
    answer = await gateway.score(run_id="r", images=[picture((64, 48))])
    assert answer.json()["preferred"] == 1
    assert (await run_of(gateway))["image_reliance"] is None
    assert gateway.count("proxy_grm_probes_total", outcome="failed") == 1


async def test_the_answer_does_not_wait_for_its_probe_and_too_many_are_skipped(
    probed, picture, until
):
    gateway = await probed(Looking(), probes_at_once=1)
    held = asyncio.Event()
    generate = gateway.engine.generate

    async def holding(request):
        if is_blank(request):
            await held.wait()
        return await generate(request)

    gateway.engine.generate = holding  # a scripted engine has one pace for all it is asked
    for question in ("one?", "two?"):
        answer = await gateway.score(question=question, images=[picture((64, 48))])
        assert answer.json()["status"] == "ok"
    assert gateway.count("proxy_grm_probes_total", outcome="skipped") == 1
    assert gateway.count("proxy_grm_probes_total", outcome="changed") == 0
    held.set()
    await gateway.parts.honesty.settled()
    assert gateway.count("proxy_grm_probes_total", outcome="same") == 1


async def test_what_cannot_be_probed_is_not(probed, picture):
    judge = Looking()
    gateway = await probed(judge)
    await gateway.score(question="no image?")
    judge.seen = None
    await gateway.score(question="unreadable?", images=[picture((64, 48))])
    await gateway.parts.honesty.settled()
    assert len(gateway.engine.requests) == 2


async def test_a_judgement_from_the_cache_is_not_probed_again(probed, picture):
    gateway = await probed(Looking())
    for _ in range(3):
        await gateway.score(images=[picture((64, 48))])
    await gateway.parts.honesty.settled()
    assert gateway.count("proxy_grm_probes_total", outcome="same") == 1
    assert len(gateway.engine.requests) == 2


async def test_nothing_is_probed_unless_it_is_asked_for(start_gateway, picture):
    gateway = await start_gateway(Looking())
    await gateway.score(images=[picture((64, 48))])
    await gateway.parts.honesty.settled()
    assert len(gateway.engine.requests) == 1


async def test_without_a_store_judgements_go_on_uncounted(start_gateway, tmp_path, picture):
    gateway = await start_gateway(
        Looking(), redis_url=f"unix://{tmp_path}/none.sock", honesty={"probe_share": 1.0}
    )
    answer = await gateway.score(run_id="r", images=[picture((64, 48))])
    assert answer.json()["status"] == "ok"
    assert (await run_of(gateway, status=404))["code"] == "not_found"


async def test_a_gateway_that_stops_ends_its_probes(probed, picture, until):
    gateway = await probed(Looking())
    gateway.engine.seconds = 3600
    judging = asyncio.create_task(gateway.score(images=[picture((64, 48))]))
    await until(lambda: gateway.engine.running == 1)
    judging.cancel()
    await until(lambda: gateway.engine.running == 0)
    gateway.engine.seconds = 0
    await gateway.score(images=[picture((64, 48))], question="now?")
    await gateway.parts.honesty.close()
    await gateway.parts.honesty.settled()
    assert gateway.engine.running == 0
