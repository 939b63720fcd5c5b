"""One vLLM server: whether it can be used, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Literal

import httpx
import structlog

from models.errors import ReleaseInvalid
from models.prompts import FilledPrompt
from models.release import Role
from models.release_checks import check_role
from service.concurrency import unless
from service.engines.contract import Generation, GenerationRequest
from service.engines.progress import Progress
from service.engines.remote_chat import ReplicaLost, completion, conversation, generation
from service.engines.vllm_common import FEWEST_ANSWER_TOKENS, SERVED, probe
from service.errors import ContextExceeded

_log = structlog.get_logger(__name__)

_CONNECT_S = 5.0
_STRIKES = 3
_CLOSED_S = 60.0
_CHECK_S = 600.0  # the first forward pass may compile

ReplicaState = Literal["unseen", "ready", "down", "refused"]
Health = Literal["well", "ill", "closed"]


class Replica:
    """A vLLM server that serves one role of the release.

    Attributes:
        url: where it is; its name in logs and for `affinity`.
        load: requests that it has in work for this gateway.
        state: whether it is used; `refused` is one that has not this release's weights.
        refused: why it cannot serve this release; None while there is hope.
    """

    def __init__(
        self,
        url: str,
        role: Role,
        name: str,
        client: httpx.AsyncClient,
        died: Callable[[], object],
        patience_s: float,
    ) -> None:
        self.url = url.rstrip("/")
        self.load = 0
        self.state: ReplicaState = "unseen"
        self.refused: ReleaseInvalid | None = None
        self._role = role
        self._name = name
        self._client = client
        self._died = died
        self._model = ""
        self._labels: tuple[int, int] | None = None
        self._strikes = 0
        self._losses = 0
        self._closed_at: float | None = None
        self._lost = asyncio.Event()
        self._progress = Progress(self._ask_first, patience_s)

    def begin(self) -> None:
        """Knows nothing of it, as at first."""
        self.state, self.refused = "unseen", None
        self._strikes, self._losses, self._closed_at = 0, 0, None

    async def look(self) -> None:
        """Sees whether it can be used; one that is new or was away is checked first."""
        health = await self.health()
        if health == "well":
            self._strikes, self._closed_at = 0, None
            if self.state not in ("ready", "refused"):  # what is served changes with a restart
                await self._admit()
            elif self.state == "ready" and await self._progress.stalled():
                _log.error("engine replica hangs", url=self.url, role=self._role.name)
                self.avoid()
                self.abandon()
        elif health == "closed":
            self._find_closed()
        else:
            self._strikes += 1
            if self._strikes >= _STRIKES or self.state != "ready":
                self.avoid()
            if self._strikes >= _STRIKES:
                self.abandon()

    def _find_closed(self) -> None:
        """Nobody listens: it has died, and its connections with it, or finishes what it has."""
        now = time.monotonic()
        self._closed_at = self._closed_at or now
        self.avoid()
        if now - self._closed_at > _CLOSED_S:
            self.abandon()

    def avoid(self) -> None:
        """Gives it nothing more until it has been checked again; what it has, it may finish."""
        if self.state == "ready":
            _log.error("engine replica lost", url=self.url, role=self._role.name)
            self._died()
        self.state = "down"

    def abandon(self) -> None:
        """Waits no longer for what it has in work: another shall do that."""
        self.state = "down"
        self._lost.set()

    async def doubt(self, lost: ReplicaLost) -> None:
        """Avoids it after a request was lost there, unless it seems well."""
        if lost.busy or self.state != "ready":
            return
        self._losses += 1
        if self._losses >= _STRIKES or await self.health() != "well":
            self.avoid()

    async def _admit(self) -> None:
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._check()
        except ReleaseInvalid as error:
            _log.error("engine replica cannot serve this release", url=self.url, reason=str(error))
            self.state, self.refused = "refused", error
        except (ReplicaLost, TimeoutError) as error:
            _log.warning("engine replica is not ready yet", url=self.url, reason=str(error))
            self.state = "down"
        else:
            self.state, self.refused = "ready", None
            self._lost = asyncio.Event()
            self._losses = 0
            _log.info("engine replica ready", url=self.url, role=self._role.name)

    async def generate(self, request: GenerationRequest) -> Generation:
        """`Engine.generate` on this server; cancelling it closes the connection, which aborts.

        Raises:
            ReplicaLost, ContextExceeded
        """
        self.load += 1
        try:
            body = await asyncio.to_thread(conversation, request.prompt, request.prefill)
            body |= completion(request, self._labels) | {"model": self._model}
            lost = ReplicaLost("it does not answer any more")
            with self._progress.generating():
                posting = self._post("/v1/chat/completions", body)
                answer = await unless(self._lost, posting, lost)
        finally:
            self.load -= 1
        found = generation(answer, request, self._labels)
        self._losses = 0
        fewest = min(FEWEST_ANSWER_TOKENS, request.max_tokens)
        if found.truncated and found.completion_tokens < fewest:
            raise ContextExceeded("the comparison exceeds the model's context")
        return found

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        """The prompt as the served model will see it (`models.release_checks.Renderer`)."""
        return list((await self._tokenized(prompt, prefill))["tokens"])

    async def _tokenized(self, prompt: FilledPrompt, prefill: str = "") -> dict[str, Any]:
        body = await asyncio.to_thread(conversation, prompt, prefill)
        return await self._post("/tokenize", body | {"model": self._model})

    async def _check(self) -> None:
        """Checks that the release fits what is served there, and makes a first forward pass."""
        models = await self._answered(self._client.get(f"{self.url}/v1/models", timeout=_CONNECT_S))
        self._model = models["data"][0]["id"]
        if self._model.startswith(SERVED) and self._model != self._name:
            raise ReleaseInvalid(f"the server has {self._model}, and not {self._name}")
        first = probe(self._role)
        try:
            context = (await self._tokenized(first))["max_model_len"]
            if context < self._role.config.context_tokens:
                raise ReleaseInvalid(
                    f"the server's context of {context} tokens is shorter than the release's "
                    f"{self._role.config.context_tokens}"
                )
            self._labels = await check_role(self._role, self)
            await self._ask_first()
        except ContextExceeded as error:
            raise ReleaseInvalid(f"the server refused a probe: {error.__cause__}") from error

    async def _ask_first(self) -> None:
        """One token, the least that it can be asked for."""
        # With a priority, for a server without priority scheduling refuses that.
        request = GenerationRequest(probe(self._role), 1, read_labels=True, priority="batch")
        body = await asyncio.to_thread(conversation, request.prompt)
        body |= completion(request, self._labels) | {"model": self._model}
        generation(await self._post("/v1/chat/completions", body), request, self._labels)

    async def health(self) -> Health:
        """What it says itself; `closed` when nobody listens there."""
        try:
            answer = await self._client.get(f"{self.url}/health", timeout=_CONNECT_S)
        except httpx.ConnectError:
            return "closed"
        except httpx.HTTPError:
            return "ill"
        return "well" if answer.status_code == 200 else "ill"

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        timeout = httpx.Timeout(None, connect=_CONNECT_S)  # the caller's deadline cancels
        return await self._answered(
            self._client.post(f"{self.url}{path}", json=body, timeout=timeout)
        )

    async def _answered(self, asking: Any) -> dict[str, Any]:
        """The boundary: what a server or the way to it does becomes one of our errors."""
        try:
            answer: httpx.Response = await asking
        except httpx.HTTPError as cause:
            raise ReplicaLost(type(cause).__name__) from cause
        if answer.status_code == 200:
            with contextlib.suppress(ValueError):
                return answer.json()
        said = answer.text[:500]
        if answer.status_code in (429, 503):
            raise ReplicaLost(f"status {answer.status_code}", busy=True)
        if answer.status_code == 400:
            raise ContextExceeded("the comparison is longer than the model's context") from _Said(
                said
            )
        _log.warning("engine replica failed", url=self.url, status=answer.status_code, said=said)
        raise ReplicaLost(f"status {answer.status_code}")


class _Said(Exception):
    """What a server said, for the log alone."""
