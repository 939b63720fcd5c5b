"""Judgements by the real engine, through HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from skimage import data

from models.judgement import read_judgement

from .conftest import LiveGateway, toy_body

EXAMPLES = Path(__file__).parents[2] / "examples"


def jpeg_of(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format="JPEG", quality=90)
    return base64.b64encode(buffer.getvalue()).decode()


def assert_is_judgement(answer: dict[str, Any]) -> None:
    if answer["status"] == "abstain":
        assert answer["reason"] in ("unreadable", "truncated", "disagreement")
        assert answer["preferred"] is None
        assert answer["probability"] is None
        return
    assert answer["reason"] is None
    assert 0.0 <= answer["probability"] <= 1.0
    assert answer["preferred"] == (1 if answer["probability"] >= 0.5 else 2)


@pytest.mark.parametrize("example", ["scene.json", "cat.json"])
def test_the_examples_of_the_readme_are_judged(client: httpx.Client, example: str) -> None:
    answer = client.post("/score", content=(EXAMPLES / example).read_bytes()).json()
    assert answer["status"] == "ok"
    assert_is_judgement(answer)
    written = read_judgement(answer["verdicts"][0]["text"])
    assert written.rubric is not None
    assert answer["rubric"]["text"] == written.rubric.text
    assert answer["release"]["purpose"] == "demo"


def test_the_demo_shows_a_judgement(gateway: LiveGateway) -> None:
    asked = json.loads((EXAMPLES / "scene.json").read_text())
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "proxy_grm_client.cli", "score", EXAMPLES / "scene.png"),
            *("-q", asked["question"], "-a", asked["responses"][0], "-b", asked["responses"][1]),
            *("--url", gateway.url, "--order", "both"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for word in ("rubric", "evaluation", "verdict", "is better", "P(response 1 is better)"):
        assert word in shown.stdout


def test_both_orders_average_and_mirror(client: httpx.Client) -> None:
    answer = client.post("/score", json=toy_body(1, order="both", cache="bypass")).json()
    given, swapped = answer["verdicts"]
    assert (given["order"], swapped["order"]) == ("given", "swapped")
    mean = (given["probability"] + swapped["probability"]) / 2
    assert answer["probability"] == pytest.approx(mean)
    assert answer["order_consistent"] is (given["preferred"] == swapped["preferred"])


@pytest.mark.parametrize("rubric", [None, {"text": "1. Truth (100%): what the image shows."}])
def test_verdict_depth_writes_no_evaluation(client: httpx.Client, rubric: Any) -> None:
    body = toy_body(2, depth="verdict", rubric=rubric, cache="bypass")
    answer = client.post("/score", json=body).json()
    assert answer["status"] == "ok"
    assert_is_judgement(answer)
    assert answer["evaluation"] is None
    (verdict,) = answer["verdicts"]
    assert verdict["text"].endswith(f"<eval></eval>\n<answer>{answer['preferred']}")
    if rubric:
        assert answer["rubric"]["text"] == rubric["text"]
        assert answer["usage"]["completion_tokens"] == 1
    else:
        assert verdict["text"].startswith(f"<rubric>\n{answer['rubric']['text']}")


def test_a_rubric_can_be_written_once_and_used_again(client: httpx.Client) -> None:
    written = client.post("/rubric", json=toy_body(3)).json()
    assert written["status"] == "ok"
    body = toy_body(3, rubric={"id": written["rubric"]["id"]})
    answer = client.post("/score", json=body).json()
    assert answer["rubric"] == written["rubric"]


def test_photographs_of_several_megapixels_are_judged(client: httpx.Client) -> None:
    photograph = Image.fromarray(data.astronaut()).resize((2600, 2600))
    images = [{"data": jpeg_of(photograph)}, {"data": jpeg_of(Image.fromarray(data.chelsea()))}]
    body = {
        "question": "Who is in the first picture?",
        "responses": ["An astronaut in an orange suit.", "A cat."],
        "images": images,
    }
    answer = client.post("/score", json=body).json()
    assert answer["status"] == "ok"
    assert_is_judgement(answer)


def test_a_question_without_picture_is_judged(client: httpx.Client) -> None:
    body = {"question": "What is 2 + 2?", "responses": ["4", "5"]}
    answer = client.post("/score", json=body).json()
    assert answer["status"] == "ok"
    assert_is_judgement(answer)


def test_a_text_longer_than_the_context_is_refused(client: httpx.Client) -> None:
    for question in ("word " * 5_000, "x" * 900_000):
        refused = client.post("/score", json={"question": question, "responses": ["a", "b"]})
        assert refused.status_code == 422
        assert refused.json()["code"] == "context_exceeded"
    assert client.post("/score", json=toy_body(4)).json()["status"] == "ok"


def test_256_calls_at_once_are_all_answered_and_counted(gateway: LiveGateway) -> None:
    before = {
        name: gateway.metric(f"vllm:{name}_tokens_total") for name in ("prompt", "generation")
    }
    bodies = [toy_body(1_000 + n, cache="bypass") for n in range(256)]

    async def all_at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=gateway.url, timeout=300, limits=limits) as http:
            return await asyncio.gather(*(http.post("/score", json=body) for body in bodies))

    responses = asyncio.run(all_at_once())
    assert [response.status_code for response in responses] == [200] * 256
    answers = [response.json() for response in responses]
    for answer in answers:
        assert_is_judgement(answer)
    assert sum(answer["status"] == "ok" for answer in answers) >= 250
    reported = {
        "prompt": sum(answer["usage"]["prompt_tokens"] for answer in answers),
        "generation": sum(answer["usage"]["completion_tokens"] for answer in answers),
    }
    risen = {name: gateway.metric(f"vllm:{name}_tokens_total") - before[name] for name in before}
    assert risen == reported


def test_1000_lines_with_a_bad_one_lose_only_that_one(client: httpx.Client) -> None:
    lines = [
        json.dumps(toy_body(n % 40, id=f"line-{n}", depth="verdict", rubric={"text": "1. Truth"}))
        for n in range(1_000)
    ]
    lines[500] = '{"id": "bad", "question": "?"'
    answered = client.post("/score/batch", content="\n".join(lines), timeout=300).text.splitlines()
    answers = [json.loads(line) for line in answered]
    errors = [answer for answer in answers if "error" in answer]
    assert [(e["line"], e["error"]["code"]) for e in errors] == [(501, "invalid_request")]
    judged = [answer for answer in answers if "error" not in answer]
    assert {answer["id"] for answer in judged} == {f"line-{n}" for n in range(1_000) if n != 500}
    assert len(judged) == 999
    for answer in judged:
        assert_is_judgement(answer)


def test_abandoned_calls_leave_the_engine(gateway: LiveGateway) -> None:
    def abandon(seed: int) -> None:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(
                f"{gateway.url}/score",
                json=toy_body(seed, order="both", votes=16, temperature=1.0),
                timeout=httpx.Timeout(10, read=0.2),
            )

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(abandon, range(64)))
    for _ in range(50):
        running = gateway.metric("vllm:num_requests_running") + gateway.metric("proxy_grm_inflight")
        if running == 0:
            break
        asyncio.run(asyncio.sleep(0.1))
    assert running == 0
    assert gateway.metric("proxy_grm_queued") == 0


def test_many_seeded_votes_at_once_leave_the_engine_alive(gateway: LiveGateway) -> None:
    def ask(number: int) -> httpx.Response:
        body = toy_body(number, order="both", votes=8, temperature=1.0, seed=number)
        return httpx.post(f"{gateway.url}/score", json=body, timeout=120)

    with ThreadPoolExecutor(24) as pool:
        responses = list(pool.map(ask, range(24)))
    assert [response.status_code for response in responses] == [200] * 24
    for response in responses:
        assert_is_judgement(response.json())
    assert gateway.metric("proxy_grm_engine_deaths_total") == 0


def test_votes_at_a_temperature_are_averaged(client: httpx.Client) -> None:
    body = toy_body(7, votes=4, temperature=1.0, seed=5, rubric={"text": "1. Truth (100%): true."})
    answer = client.post("/score", json=body).json()
    assert len(answer["verdicts"]) == 4
    assert_is_judgement(answer)
