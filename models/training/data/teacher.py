"""Asking a teacher for judgements, on any server that speaks OpenAI's chat completions.

The SDK's own retries are off: here they have a deadline, honour Retry-After for
all requests at once, and end in a failure of a known kind. Nothing that is not
exactly a judgement becomes one.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from openai import APIError, APIStatusError, APITimeoutError, AsyncOpenAI
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic.dataclasses import dataclass

from models.errors import ModelsError, UnreadableJudgement
from models.judgement import read_judgement
from models.training.data.ledger import Failure, FailureKind, Spent, storable
from models.training.data.questions import Messages
from models.training.data.records import TeacherJudgement

_SETUP = {
    401: "the API key is missing or not accepted: check api_key_file",
    402: "the account has no credit left",
    404: "no such address or model: check base_url and model",
    405: "this is no chat completions address: check base_url",
}
_TRANSIENT = (408, 409, 425, 429)
_FILTERED = {"content_filter", "content_policy_violation", "moderation_blocked"}


class TeacherUnusable(ModelsError):
    """No record can be judged by this teacher as it is set up. The message says what to change."""


class NoJudgement(ModelsError):
    """There is no judgement of a record; `failure` says why."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.failure = Failure(kind=kind, detail=detail)


class _NotNow(Exception):
    """A problem of the server that may pass."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.failure = Failure(kind="unavailable", detail=detail)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TeacherOptions:
    """Who is asked, and how patiently."""

    base_url: str = Field(
        pattern=r"^https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/\S*)?$",
        description="up to and including /v1",
    )
    model: str = Field(min_length=1, description="its name on that server")
    api_key_file: Path | None = Field(
        default=None, description="file that holds nothing but the key; None: none is needed"
    )
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    max_tokens: int | None = Field(
        default=4096, ge=1, description="longest answer; None: whatever the server allows"
    )
    seed: int | None = Field(
        default=0, description="each request gets its own from it; None: none is sent"
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="further fields of the request"
    )
    reasks: int = Field(
        default=2, ge=0, description="an unreadable answer is asked for again so many times"
    )
    reask_temperature: float = Field(
        default=0.7, ge=0.0, le=2.0, description="at least this then: greedy answers repeat"
    )
    request_timeout_s: float = Field(default=300.0, gt=0, description="one answer")
    deadline_s: float = Field(
        default=900.0, gt=0, description="one record, all samples and repetitions together"
    )
    backoff_s: float = Field(default=1.0, gt=0, description="first wait; doubled each time")
    longest_backoff_s: float = Field(default=60.0, gt=0, description="Retry-After may be longer")


class _Message(BaseModel):
    content: Annotated[str | None, BeforeValidator(storable)] = None
    refusal: Annotated[str | None, BeforeValidator(storable)] = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt


class _Completion(BaseModel):
    """What is used of an answer. The SDK's own type takes any JSON without a check."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None

    @field_validator("usage", mode="wrap")
    @classmethod
    def _or_unmetered(cls, usage: Any, validate: ValidatorFunctionWrapHandler) -> _Usage | None:
        try:
            return validate(usage)
        except ValidationError:
            return None


class Teacher:
    """A connection to the server; used as an async context manager.

    Args:
        options: who is asked.
        tell: is told of each problem that is waited out.

    Raises:
        TeacherUnusable: there is no key where it should be.
    """

    def __init__(
        self, options: TeacherOptions, tell: Callable[[Failure], None] = lambda _: None
    ) -> None:
        self.options = options
        self._tell = tell
        self._key = _read_key(options.api_key_file)
        self._client = AsyncOpenAI(
            base_url=options.base_url,
            api_key=self._key or "none",  # without one the SDK would send OPENAI_API_KEY
            timeout=options.request_timeout_s,
            max_retries=0,
        )
        self._client.organization = self._client.project = None  # variables meant for OpenAI
        self._welcome_at_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def judge(
        self, messages: Messages, name: str, spent: Spent, deadline: float
    ) -> TeacherJudgement:
        """Asks until there is a judgement.

        Args:
            messages: from `Questions.messages`.
            name: of the sample; with the options' seed it decides the requests' seeds.
            spent: is added to, also when this fails.
            deadline: by the event loop's clock, in seconds.

        Raises:
            NoJudgement: there is none, and why.
            TeacherUnusable: there will be none for any other record either.
        """
        reask = 0
        while True:
            request = self._request(messages, f"{name}/{reask}", again=reask > 0)
            completion = await self._completion(request, spent, deadline)
            try:
                return _read(completion, self.options.model)
            except UnreadableJudgement as cause:
                if reask >= self.options.reasks:
                    raise NoJudgement("unreadable", str(cause)) from cause
            reask += 1

    def _request(self, messages: Messages, name: str, *, again: bool) -> dict[str, Any]:
        options = self.options
        warmest = max(options.temperature, options.reask_temperature)
        request: dict[str, Any] = {
            "model": options.model,
            "messages": messages,
            "temperature": warmest if again else options.temperature,
            "extra_body": options.extra_body,
        }
        if options.max_tokens is not None:
            request["max_tokens"] = options.max_tokens
        if options.seed is not None:
            request["seed"] = random.Random(f"{options.seed}/{name}").getrandbits(31)
        return request

    async def _completion(
        self, request: dict[str, Any], spent: Spent, deadline: float
    ) -> _Completion:
        """Sends a request until it is answered."""
        now = asyncio.get_running_loop().time
        failure: Failure | None = None
        attempt = 0
        while True:
            await self._until_welcome(deadline)
            spent.requests += 1
            try:
                ends_at = min(deadline, now() + self.options.request_timeout_s)
                async with asyncio.timeout_at(ends_at):
                    completion = await self._send(request)
            except (TimeoutError, APITimeoutError):
                if failure is None or now() < deadline:  # else what came before says more
                    failure = Failure(kind="timeout", detail="no answer in time")
            except _NotNow as problem:
                failure = problem.failure
            else:
                _meter(completion, spent)
                return completion
            wait_s = self._backoff_s(attempt)
            if now() + wait_s >= deadline:
                raise NoJudgement(failure.kind, failure.detail)
            self._tell(failure)
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _send(self, request: dict[str, Any]) -> _Completion:
        try:
            raw = await self._client.chat.completions.with_raw_response.create(**request)
        except APIStatusError as error:
            raise self._meaning(error) from error
        except APITimeoutError:
            raise
        except APIError as error:
            reason = error.__cause__ or error
            raise _NotNow(f"{type(reason).__name__}: {reason}") from error
        try:
            return _Completion.model_validate(json.loads(raw.content))
        except (ValueError, RecursionError) as cause:
            raise _NotNow(f"no chat completion, but {raw.content[:80]!r}") from cause

    def _meaning(self, error: APIStatusError) -> Exception:
        """What a status that is not 200 says about the request, the record or the set-up."""
        message = error.message.replace(self._key, "…") if self._key else error.message
        said = f"HTTP {error.status_code}: {message[:200]}"
        if error.status_code in _SETUP or error.code == "insufficient_quota":
            what_to_do = _SETUP.get(error.status_code, _SETUP[402])
            return TeacherUnusable(f"{self.options.base_url}: {what_to_do} ({said})")
        if error.status_code in _TRANSIENT or error.status_code >= 500:
            pause_s = _retry_after_s(error.response.headers)
            welcome_at_s = asyncio.get_running_loop().time() + pause_s
            self._welcome_at_s = max(self._welcome_at_s, welcome_at_s)
            return _NotNow(said)
        return NoJudgement("refused" if error.code in _FILTERED else "rejected", said)

    async def _until_welcome(self, deadline: float) -> None:
        """Waits as long as the server has asked to be left alone, by whichever request."""
        now = asyncio.get_running_loop().time
        while (wait_s := self._welcome_at_s - now()) > 0:
            if now() + wait_s >= deadline:
                raise NoJudgement("unavailable", f"the server asks to wait {wait_s:.0f} s more")
            # Not all at the same moment again.
            await asyncio.sleep(wait_s + random.random() * self.options.backoff_s)

    def _backoff_s(self, attempt: int) -> float:
        longest = min(
            self.options.longest_backoff_s, self.options.backoff_s * 2 ** min(attempt, 30)
        )
        return longest * random.uniform(0.5, 1.0)


def _read(completion: _Completion, model: str) -> TeacherJudgement:
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise NoJudgement("refused", choice.message.refusal or "stopped by a content filter")
    if choice.finish_reason == "length":
        raise NoJudgement("truncated", "the answer was cut off; raise max_tokens")
    written = read_judgement(choice.message.content or "")
    if written.rubric is None:
        raise UnreadableJudgement("the answer has no rubric")
    usage = completion.usage or _Usage(prompt_tokens=0, completion_tokens=0)
    return TeacherJudgement(
        rubric=written.rubric.text,
        justification=written.rubric.justification,
        evaluation=written.evaluation,
        verdict=written.preferred,
        model=model,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _meter(completion: _Completion, spent: Spent) -> None:
    if completion.usage is None:
        spent.unmetered += 1
        return
    spent.prompt_tokens += completion.usage.prompt_tokens
    spent.completion_tokens += completion.usage.completion_tokens


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Retry-After in seconds, also where it is a date; 0 without a readable one."""
    value = headers.get("retry-after", "")
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, wait_s) if math.isfinite(wait_s) else 0.0


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise TeacherUnusable(f"api_key_file {path} cannot be read") from cause
    if not key.isascii() or not key.isprintable() or not key or " " in key:
        raise TeacherUnusable(f"api_key_file {path} must hold one key and nothing else")
    return key
