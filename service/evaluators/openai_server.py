"""Any model behind an OpenAI-compatible server, given the rubric and asked as a proxy is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError
from typing_extensions import override

from models.comparison import Comparison, Position
from models.errors import UnreadableJudgement
from models.judgement import ANSWER_END, read_judgement
from models.neutralise import Neutraliser
from models.prompts import DEFAULT_DIR, PROXY_LAYOUTS, FilledPrompt, read_prompts
from models.rubric import Rubric
from service.engines import Priority
from service.evaluators.contract import Evaluator, EvaluatorConfig, Opinion, Surroundings
from service.evaluators.remote import BadAnswer, HttpUrl, JsonServer, data_uri
from service.judging import Usage

_ALTERNATIVES = 20


class OpenAIServerConfig(EvaluatorConfig):
    """Which model, where, and what it can be asked for.

    Attributes:
        base_url: up to and with ``/v1``.
        model: as the server calls it.
        max_tokens: a whole evaluation with its answer.
        tokens_field: what the server calls that limit; newer OpenAI models know the second alone.
        logprobs: ask how likely the verdict was; off for servers that refuse to be asked.
        extra: further fields of each request, over those that are sent anyway.
    """

    base_url: HttpUrl
    model: str = Field(min_length=1)
    max_tokens: int = Field(default=2048, ge=1)
    tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    logprobs: bool = True
    extra: dict[str, Any] = Field(default_factory=dict)


class OpenAIServerEvaluator(Evaluator):
    """Says how sure it is where its server has log-probabilities."""

    Config = OpenAIServerConfig

    def __init__(
        self, config: OpenAIServerConfig, server: JsonServer, neutralise: Neutraliser
    ) -> None:
        self._config = config
        self._server = server
        self._neutralise = neutralise
        self._prompt = read_prompts(DEFAULT_DIR, PROXY_LAYOUTS)["proxy"]

    @override
    @classmethod
    def build(cls, config: EvaluatorConfig, around: Surroundings) -> Self:
        assert isinstance(config, OpenAIServerConfig)
        server = JsonServer(config.base_url.rstrip("/") + "/chat/completions", config.api_key)
        return cls(config, server, around.release.judge.neutralise)

    @override
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        prompt = self._prompt.fill(comparison, self._neutralise, rubric)
        said = await self._server.ask(await self._request(prompt))
        try:
            completion = _Completion.model_validate(said)
        except ValidationError as error:
            raise BadAnswer(f"no chat completion: {str(said)[:200]}") from error
        return _opinion(completion.choices[0], completion.used())

    @override
    async def close(self) -> None:
        await self._server.close()

    async def _request(self, prompt: FilledPrompt) -> dict[str, Any]:
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": await data_uri(part)}}
            for part in prompt.user
        ]
        asked: dict[str, Any] = {
            "model": self._config.model,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": content},
            ],
            "temperature": 0,
            self._config.tokens_field: self._config.max_tokens,
        }
        if self._config.logprobs:
            asked |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        return asked | self._config.extra


class _Alternative(BaseModel):
    token: str
    logprob: float = Field(le=1, allow_inf_nan=False)


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(BaseModel):
    cached_tokens: int | None = Field(default=None, ge=0)


class _Usage(BaseModel):
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    prompt_tokens_details: _Details | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None

    def used(self) -> Usage:
        """What it says it computed; zeros where it says nothing."""
        said = self.usage or _Usage()
        cached = said.prompt_tokens_details.cached_tokens if said.prompt_tokens_details else None
        return Usage(said.prompt_tokens, said.completion_tokens, cached or 0, calls=1)


def _opinion(choice: _Choice, usage: Usage) -> Opinion:
    try:
        preferred = read_judgement(choice.message.content or "", "evaluation").preferred
    except UnreadableJudgement:
        truncated = choice.finish_reason == "length"
        return Opinion.abstains("truncated" if truncated else "unreadable", usage)
    tokens = choice.logprobs.content if choice.logprobs is not None else None
    probability = _probability_of_first(tokens or (), preferred)
    if probability is None:
        return Opinion.prefers(preferred, usage)
    found = Opinion.of(probability, usage)
    # Asked greedily, the verdict is the likelier label; otherwise one of the two is not true.
    return found if found.preferred == preferred else Opinion.abstains("unreadable", usage)


def _probability_of_first(tokens: Sequence[_Token], preferred: Position) -> float | None:
    """P(1) among both labels at the verdict token; None where there is no such token."""
    after = ""
    for token in reversed(tokens):
        if token.token.strip() == str(preferred):
            break
        after = token.token + after
    else:
        return None
    if after.strip() != ANSWER_END or not token.top_logprobs:
        return None
    likely = [(one.token.strip(), math.exp(one.logprob)) for one in token.top_logprobs]
    every = [probability for _, probability in likely]
    # At most so likely is a label that is not listed: the truth is surer than what comes out.
    unlisted = min(*every, 1.0, max(0.0, 1 - math.fsum(every)))
    first, second = (
        math.fsum(p for said, p in likely if said == label) or unlisted for label in ("1", "2")
    )
    return first / (first + second) if first + second > 0 else None
