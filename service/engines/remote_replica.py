"""One vLLM server: whether it can be used, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Literal

import httpx
import structlog

from models.errors import ReleaseInvalid
from models.prompts import FilledPrompt
from models.release import Role
from models.release_checks import check_role
from service.engines.contract import Generation, GenerationRequest
from service.engines.remote_chat import completion, conversation, generation
from service.engines.vllm_common import FEWEST_ANSWER_TOKENS, SERVED, probe
from service.errors import ContextExceeded, EngineUnavailable

_log = structlog.get_logger(__name__)

_CONNECT_S = 5.0
_STRIKES = 3

ReplicaState = Literal["unseen", "ready", "down", "refused"]


class ReplicaLost(Exception):
    """It went away, or gave up, before it had an answer; another may have one."""


class Replica:
    """A vLLM server that serves one role of the release.

    Attributes:
        url: where it is; its name in logs and for `affinity`.
        load: requests that it has in work for this gateway.
        refused: why it cannot serve this release; None while there is hope.
    """

    def __init__(self, url: str, role: Role, name: str, client: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/")
        self.load = 0
        self.state: ReplicaState = "unseen"
        self.refused: ReleaseInvalid | None = None
        self._role = role
        self._name = name
        self._client = client
        self._model = ""
        self._labels: tuple[int, int] | None = None
        self._strikes = 0
        self._lost = asyncio.Event()

    async def look(self) -> None:
        """Sees whether it can be used; one that is new or was away is checked first."""
        if not await self.healthy():
            self._strikes += 1
            if self.state != "ready" or self._strikes >= _STRIKES:
                self.lose()
            return
        self._strikes = 0
        if self.state in ("ready", "refused"):  # what is served there changes with a restart
            return
        try:
            await self._check()
            self.state, self.refused = "ready", None
            self._lost = asyncio.Event()
            _log.info("engine replica ready", url=self.url, role=self._role.name)
        except ReleaseInvalid as error:
            _log.error("engine replica cannot serve this release", url=self.url, reason=str(error))
            self.state, self.refused = "refused", error
        except (ReplicaLost, EngineUnavailable) as error:
            _log.warning("engine replica is not ready yet", url=self.url, reason=str(error))
            self.state = "down"

    def lose(self) -> None:
        """Uses it no more until it has been looked at again; what it has in work is lost."""
        if self.state == "ready":
            _log.error("engine replica lost", url=self.url, role=self._role.name)
        self.leave()

    def leave(self) -> None:
        """The same, when that is what is wanted."""
        self.state = "down"
        self._lost.set()

    async def generate(self, request: GenerationRequest) -> Generation:
        """`Engine.generate` on this server; cancelling it closes the connection, which aborts.

        Raises:
            ReplicaLost, EngineUnavailable, ContextExceeded
        """
        self.load += 1
        try:
            body = await asyncio.to_thread(conversation, request.prompt, request.prefill)
            body |= completion(request, self._labels) | {"model": self._model}
            answer = await self._unless_lost(self._post("/v1/chat/completions", body))
        finally:
            self.load -= 1
        found = generation(answer, request, self._labels)
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
            # With a priority, for a server without priority scheduling refuses that.
            request = GenerationRequest(first, 1, read_labels=True, priority="batch")
            body = await asyncio.to_thread(conversation, first)
            body |= completion(request, self._labels) | {"model": self._model}
            generation(await self._post("/v1/chat/completions", body), request, self._labels)
        except ContextExceeded as error:
            raise ReleaseInvalid(f"the server refused a probe: {error.__cause__}") from error

    async def healthy(self) -> bool:
        """Whether it says so itself."""
        try:
            answer = await self._client.get(f"{self.url}/health", timeout=_CONNECT_S)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

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
            raise EngineUnavailable("the engine's queue is full", retry_after_s=1)
        if answer.status_code == 400:
            raise ContextExceeded("the comparison is longer than the model's context") from _Said(
                said
            )
        _log.warning("engine replica failed", url=self.url, status=answer.status_code, said=said)
        raise ReplicaLost(f"status {answer.status_code}")

    async def _unless_lost(self, asking: Any) -> dict[str, Any]:
        """Its answer, or `ReplicaLost` as soon as it is known to be away."""
        answering, losing = asyncio.create_task(asking), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({answering, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ReplicaLost("it does not answer any more")
            return answering.result()
        finally:
            for task in (answering, losing):
                task.cancel()
            await asyncio.gather(answering, losing, return_exceptions=True)


class _Said(Exception):
    """What a server said, for the log alone."""
