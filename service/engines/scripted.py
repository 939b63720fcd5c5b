"""A deterministic engine without a model, for tests and rehearsals.

It answers in the judgement grammar; which response it prefers is a function of
the prompt alone. Give it a `script` to answer otherwise: unreadably, slowly, or
by raising what a real engine raises.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Callable

from typing_extensions import override

from models.judgement import RUBRIC_END
from models.prompts import FilledPrompt
from service.engines.contract import (
    Engine,
    EngineState,
    Generation,
    GenerationRequest,
    LabelLogprobs,
)
from service.errors import EngineUnavailable

Script = Callable[[GenerationRequest], str | Generation]
"""Called once a generation; raises what `Engine.generate` may raise."""

_RUBRIC = (
    "<rubric>\n1. Accuracy (70%): it matches the image.\n"
    "2. Relevance (30%): it answers what was asked.\n"
    "<justify>Being right matters most.</justify>\n</rubric>"
)
_VERDICT = re.compile(r"([12])\s*(?:</answer>)?\s*\Z")
_CHARACTERS_A_TOKEN = 4


class ScriptedEngine(Engine):
    """Answers by a script.

    Attributes:
        seconds: how long a generation takes.
        start_s: how long a start takes; at 0 it is ready at once.
        failing_starts: how many of the next starts end in ``down``.
        starts: how often it was started.
        requests: every generation it was asked for, in order of arrival, if these are kept.
        cancelled: generations whose caller went away.
    """

    def __init__(
        self,
        script: Script | None = None,
        seconds: float = 0.0,
        *,
        start_s: float = 0.0,
        failing_starts: int = 0,
        keeps_requests: bool = True,
    ) -> None:
        self._script = script or written_by_rote
        self._state: EngineState = "stopped"
        self._starting: asyncio.Task[None] | None = None
        self.seconds = seconds
        self.start_s = start_s
        self.failing_starts = failing_starts
        self._keeps_requests = keeps_requests
        self._running = 0
        self.starts = 0
        self.requests: list[GenerationRequest] = []
        self.cancelled = 0

    @property
    @override
    def state(self) -> EngineState:
        return self._state

    @property
    @override
    def running(self) -> int:
        return self._running

    @override
    async def start(self) -> None:
        self.starts += 1
        if self.start_s > 0:
            self._state = "starting"
            self._starting = asyncio.create_task(self._start_later())
        else:
            self._finish_start()

    @override
    async def stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        self._state = "stopped"

    async def _start_later(self) -> None:
        await asyncio.sleep(self.start_s)
        self._finish_start()

    def _finish_start(self) -> None:
        failed = self.failing_starts > 0
        self.failing_starts -= failed
        self._state = "down" if failed else "ready"

    def fail(self) -> None:
        """Plays a dead engine until `start`."""
        self._state = "down"

    @override
    async def generate(self, request: GenerationRequest) -> Generation:
        if self._state != "ready":
            raise EngineUnavailable(f"the engine is {self._state}")
        if self._keeps_requests:
            self.requests.append(request)
        self._running += 1
        try:
            await asyncio.sleep(self.seconds)
            answer = self._script(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._running -= 1
        return answer if isinstance(answer, Generation) else _generation(answer, request)


def written_by_rote(request: GenerationRequest) -> str:
    """The default script: the rest of a judgement, from wherever the request begins."""
    verdict = "1" if _fraction(request.prompt) >= 0.5 else "2"
    if request.max_tokens == 1:
        return verdict
    if RUBRIC_END in request.stop:
        return _RUBRIC
    rest = (
        f"<eval>\nResponse {verdict} is closer to the image.\n</eval>\n<answer>{verdict}</answer>"
    )
    before = (*request.prompt.user, request.prefill)
    given = any("<rubric>" in part for part in before if isinstance(part, str))
    return rest if given else f"{_RUBRIC}\n{rest}"


def _generation(text: str, request: GenerationRequest) -> Generation:
    prompt_characters = len(request.prompt.system) + sum(
        len(part) for part in request.prompt.user if isinstance(part, str)
    )
    return Generation(
        text=text,
        truncated=False,
        prompt_tokens=max(1, prompt_characters // _CHARACTERS_A_TOKEN),
        completion_tokens=max(1, len(text) // _CHARACTERS_A_TOKEN),
        labels=_labels(text, request) if request.read_labels else None,
    )


def _labels(text: str, request: GenerationRequest) -> LabelLogprobs | None:
    written = _VERDICT.search(text)
    if written is None:
        return None
    sure = 0.6 + 0.39 * _fraction(request.prompt)
    first = sure if written[1] == "1" else 1 - sure
    return LabelLogprobs(math.log(first), math.log(1 - first))


def _fraction(prompt: FilledPrompt) -> float:
    """A number in 0..1 that any change of the prompt changes."""
    parts = (part if isinstance(part, str) else part.identity for part in prompt.user)
    digest = hashlib.sha256("\0".join((prompt.system, *parts)).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
