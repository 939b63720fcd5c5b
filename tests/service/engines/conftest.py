"""vLLM servers that are none."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from models.release import Role

Script = Callable[[dict[str, Any]], str]


class FakeVllm:
    """As much of a vLLM server as a remote engine talks to; a token a character.

    Attributes:
        asked: bodies of chat completions, in order of arrival.
        running: completions in work.
        cancelled: completions whose connection was closed.
        name: of the model.
        go: nothing is answered before it is set.
        up: whether the process lives.
        completed: answers a chat completion.
        listening: whether it takes more than it has.
    """

    def __init__(self, role: Role, script: Script = lambda _: "1") -> None:
        self._special = re.compile(
            "|".join(map(re.escape, role.neutralise.special_tokens)) + "|.", re.S
        )
        self._names: dict[str, int] = {}
        self.script = script
        self.context = role.config.context_tokens
        self.name = "served"
        self.asked: list[dict[str, Any]] = []
        self.running = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()
        self.up = True
        self.listening = True
        self.healthy = True
        self.failing: httpx.Response | None = None
        self.finish = "stop"
        self.completed = self._completed_in_turn

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if not (self.up and self.listening):
            raise httpx.ConnectError("refused")
        if request.url.path == "/health":
            return httpx.Response(200 if self.healthy else 503)
        if request.url.path == "/v1/models":
            return httpx.Response(
                200, json={"data": [{"id": self.name, "max_model_len": self.context}]}
            )
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            tokens = self.tokens(body)
            return httpx.Response(200, json={"tokens": tokens, "max_model_len": self.context})
        assert request.url.path == "/v1/chat/completions"
        return await self.completed(body)

    async def _completed_in_turn(self, body: dict[str, Any]) -> httpx.Response:
        self.asked.append(body)
        self.running += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if not self.up:
            raise httpx.RemoteProtocolError("gone")
        return self.failing or httpx.Response(200, json=self.answer(body))

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion of what the script says."""
        text = self.script(body)
        return {
            "choices": [
                {
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": self.finish,
                    "logprobs": {"content": [self._place(one, body) for one in text]}
                    if body.get("logprobs")
                    else None,
                }
            ],
            "usage": {
                "prompt_tokens": len(self.tokens(body)),
                "completion_tokens": len(text),
                "prompt_tokens_details": {"cached_tokens": 7},
            },
        }

    def _place(self, character: str, body: dict[str, Any]) -> dict[str, Any]:
        token = f"token_id:{self._id(character)}"
        top = [
            {"token": f"token_id:{label}", "logprob": -0.5 - place}
            for place, label in enumerate(body["logprob_token_ids"])
        ]
        return {"token": token, "logprob": -0.1, "top_logprobs": top}

    def tokens(self, body: dict[str, Any]) -> list[int]:
        """A chat as tokens: roles, characters, and one token a picture."""
        found: list[int] = []
        for message in body["messages"]:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            found.append(self._id(f"<{message['role']}>"))
            for part in parts:
                text = part["text"] if part["type"] == "text" else "\0"
                found += [self._id(one) for one in self._special.findall(text)]
        return found + [self._id("<assistant>")] * body["add_generation_prompt"]

    def _id(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))


@pytest.fixture
def fake_vllm() -> type[FakeVllm]:
    return FakeVllm


def network(servers: dict[str, FakeVllm]) -> httpx.AsyncBaseTransport:
    """Servers by their host names."""

    async def send(request: httpx.Request) -> httpx.Response:
        return await servers[request.url.host](request)

    return httpx.MockTransport(send)
