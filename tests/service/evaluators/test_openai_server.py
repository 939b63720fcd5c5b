from __future__ import annotations

import math
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from models.comparison import Comparison, JudgeImage
from models.rubric import Rubric
from service.errors import ContextExceeded, EngineUnavailable
from service.evaluators import Opinion, Surroundings
from service.evaluators.kinds import build
from service.evaluators.remote import BadAnswer

pytestmark = pytest.mark.anyio

RUBRIC = Rubric("1. Count (100%): it is right.")
PICTURE = JudgeImage(Image.new("RGB", (40, 30), "teal"), "teal")
COMPARISON = Comparison("How many?", ("ALPHA", "BETA"), (PICTURE,))


def written(verdict: object) -> str:
    return f"<eval>\n1 against 2: ALPHA counts better.\n</eval>\n<answer>{verdict}</answer>"


def tokens(verdict: str, **likely: float) -> list[dict[str, Any]]:
    """The verdict's token with its alternatives (probabilities), and some around it."""
    alternatives = [
        {"token": name.removeprefix("p"), "logprob": math.log(p)} for name, p in likely.items()
    ]
    plain: dict[str, Any] = {"logprob": 0.0, "top_logprobs": []}
    return [
        {"token": "<eval>…1", **plain},
        {"token": "1", "logprob": -0.1, "top_logprobs": [{"token": "1", "logprob": -0.1}]},
        {"token": "…</eval>\n<answer>", **plain},
        {"token": verdict, "logprob": -0.1, "top_logprobs": alternatives},
        {"token": "</", **plain},
        {"token": "answer>", **plain},
    ]


def completion(
    text: str | None, content: list[dict[str, Any]] | None = None, **choice: Any
) -> tuple[int, dict[str, Any]]:
    said = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | choice
    if content is not None:
        said["logprobs"] = {"content": content}
    usage = {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99}
    return 200, {"id": "x", "object": "chat.completion", "choices": [said], "usage": usage}


@pytest.fixture
async def ask(local_server, around: Surroundings):
    """Asks a model whose server gives that answer."""
    made: list[Any] = []

    async def asked(answer: Any, **options: Any) -> Opinion:
        local_server.answer = lambda _: answer
        options = {"base_url": f"{local_server.url}/v1/", "model": "vl-72b"} | options
        made.append(build("theirs", "openai", options, SecretStr("hunter2"), around))
        return await made[-1].evaluate(COMPARISON, RUBRIC)

    yield asked
    for one in made:
        await one.close()


async def test_a_model_is_asked_as_a_proxy_is(local_server, ask):
    found = await ask(completion(written(2), tokens("2", p1=0.2, p2=0.7, pThe=0.1)))
    assert (found.status, found.preferred) == ("ok", 2)
    assert found.probability == pytest.approx(0.2 / 0.9)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (90, 9)
    [(path, headers, body)] = local_server.asked
    assert (path, headers["authorization"]) == ("/v1/chat/completions", "Bearer hunter2")
    system, user = body.pop("messages")
    assert body == {
        "model": "vl-72b",
        "temperature": 0,
        "max_tokens": 2048,
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert system["role"] == "system"
    assert "by that rubric alone" in system["content"]
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert user["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    text = user["content"][1]["text"]
    assert text.index("ALPHA") < text.index("BETA") < text.index("1. Count (100%)")


async def test_what_a_server_does_not_take_can_be_left_out_or_said_otherwise(local_server, ask):
    options = {"logprobs": False, "tokens_field": "max_completion_tokens", "max_tokens": 99}
    await ask(completion(written(1)), **options, extra={"temperature": 1, "reasoning": "low"})
    body = local_server.asked[0][2]
    del body["messages"]
    assert body == {
        "model": "vl-72b",
        "temperature": 1,
        "max_completion_tokens": 99,
        "reasoning": "low",
    }


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        tokens("3", p1=0.9, p2=0.1),
        tokens("1"),
        [*tokens("1", p1=0.9), {"token": " and more", "logprob": 0.0}],
    ],
)
async def test_without_a_verdict_token_it_only_says_which(content: Any, ask):
    found = await ask(completion(written(1), content))
    assert (found.status, found.preferred, found.probability) == ("ok", 1, None)


@pytest.mark.parametrize(
    ("likely", "probability"),
    [
        ({"p1": 0.9, "pThe": 0.02}, 0.9 / 0.92),
        ({"p1": 0.97}, 0.97),
        ({"p1": 1.0}, 1.0),
        ({"p1": 0.6, "p 1": 0.2, "p2": 0.1}, 0.8 / 0.9),
    ],
)
async def test_a_label_that_is_not_listed_is_as_likely_as_it_can_be(
    likely: dict[str, float], probability: float, ask
):
    found = await ask(completion(written(1), tokens("1", **likely)))
    assert found.probability == pytest.approx(probability)


async def test_a_verdict_against_its_own_probabilities_is_an_abstention(ask):
    found = await ask(completion(written(1), tokens("1", p1=0.1, p2=0.9)))
    assert (found.status, found.reason, found.preferred) == ("abstain", "unreadable", None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(written(0)), "unreadable"),
        (completion("The first is better: 1"), "unreadable"),
        (completion(written(1) + written(2)), "unreadable"),
        (completion(None), "unreadable"),
        (completion("<eval>\nBoth", finish_reason="length"), "truncated"),
    ],
)
async def test_what_cannot_be_read_is_an_abstention(answer: Any, reason: str, ask):
    found = await ask(answer)
    assert (found.status, found.reason, found.preferred) == ("abstain", reason, None)
    assert found.usage.prompt_tokens == 90


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        {},
        {"choices": []},
        {"choices": "none"},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 1}}]},
        {"error": {"message": "no such model"}},
        completion(written(1), [{"token": "1", "logprob": "high"}])[1],
        completion(written(1), [{"token": "1", "logprob": float("nan")}])[1],
        completion(written(1), [{"token": "1", "logprob": 1e9}])[1],
    ],
)
async def test_what_is_no_completion_is_never_a_verdict(body: object, ask):
    with pytest.raises(BadAnswer):
        await ask((200, body))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((429, {}), EngineUnavailable),
        ((500, {}), EngineUnavailable),
        ((401, {"error": "key"}), BadAnswer),
        ((400, {"error": {"code": "context_length_exceeded"}}), ContextExceeded),
        ((400, {"message": "This model's maximum context length is 4096"}), ContextExceeded),
    ],
)
async def test_a_refusal_is_told_from_an_outage(answer: Any, error: type[Exception], ask):
    with pytest.raises(error):
        await ask(answer)
