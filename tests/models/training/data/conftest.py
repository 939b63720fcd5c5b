"""A teacher on loopback that answers by a script."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

Script = Callable[[dict[str, Any], int], Awaitable[Response]]


class _Hangup(Response):
    """Breaks the connection in the middle of the body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"choices": [', "more_body": True})


class Replies:
    """What a server may answer."""

    hangup = _Hangup

    @staticmethod
    def judgement(verdict: int, evaluation: str = "The first one counts right.") -> str:
        """The text of a judgement."""
        return (
            "<rubric>\n1. Accuracy (100%): it is true.\n<justify>Truth matters.</justify>\n"
            f"</rubric>\n<eval>{evaluation}</eval>\n<answer>{verdict}</answer>"
        )

    @staticmethod
    def completion(text: Any, finish: str = "stop", **changes: Any) -> Response:
        """A chat completion of 100 prompt and 20 completion tokens."""
        message = {"role": "assistant", "content": text, "refusal": changes.pop("refusal", None)}
        body = {
            "id": "c", "object": "chat.completion", "created": 0, "model": "somebody",
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }  # fmt: skip
        return Response(json.dumps(body | changes), media_type="application/json")

    @staticmethod
    def verdict(verdict: int) -> Response:
        """A readable judgement."""
        return Replies.completion(Replies.judgement(verdict))

    @staticmethod
    def error(status: int, code: str | None = None, **headers: str) -> Response:
        """An error as OpenAI words it."""
        error = {"message": f"it says {status}", "type": "some_error", "code": code}
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return JSONResponse({"error": error}, status, headers)

    @staticmethod
    def text_of(body: dict[str, Any]) -> str:
        """All text of the user's turn."""
        parts = body["messages"][1]["content"]
        return "".join(part["text"] for part in parts if part["type"] == "text")

    @staticmethod
    async def by_digest(body: dict[str, Any], _nth: int) -> Response:
        """A verdict and an evaluation that depend on all that was asked, and on nothing else."""
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        verdict = 1 + int(digest, 16) % 2
        return Replies.completion(Replies.judgement(verdict, f"Seen {digest[:8]}."))


def question(body: dict[str, Any]) -> str:
    """The question that a request asks about."""
    after = Replies.text_of(body).partition("<question>\n")[2]
    return after.partition("\n</question>")[0]


@dataclass
class ScriptedTeacher:
    """Its address, and what it has been asked.

    A script gets the request's body, and how many with this question came before.
    """

    script: Script = Replies.by_digest
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    @property
    def questions(self) -> list[str]:
        """Of all requests, in the order in which they came."""
        return [question(body) for body in self.bodies]

    async def answer(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        body = await request.json()
        nth = self.questions.count(question(body))
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.script(body, nth)
        finally:
            self.running -= 1


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals belong to the test runner."""
        yield


@contextmanager
def serving(teacher: ScriptedTeacher) -> Iterator[ScriptedTeacher]:
    """Serves in a thread of its own, so that a test's loop may be blocked or end."""
    app = FastAPI()
    app.add_api_route("/v1/chat/completions", teacher.answer, methods=["POST"])
    config = uvicorn.Config(
        app, port=0, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    started = threading.Event()

    async def serve() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        started.set()
        await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(120)
    teacher.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield teacher
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def start_teacher() -> Iterator[Callable[..., ScriptedTeacher]]:
    """Starts teachers that stop with the test."""
    with ExitStack() as stack:

        def start(script: Script = Replies.by_digest) -> ScriptedTeacher:
            return stack.enter_context(serving(ScriptedTeacher(script)))

        yield start


@pytest.fixture
def replies() -> type[Replies]:
    """What such a teacher can be told to answer."""
    return Replies
