"""One request and its answer, apart from how the bytes travel.

`Client` and `AsyncClient` share everything here; they differ in who waits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from proxy_grm_client.answers import Judgement, Position, Rubric, Verification, WrittenRubric
from proxy_grm_client.errors import BY_CODE, ProxyGrmError, ServiceUnreachable, UnexpectedAnswer
from proxy_grm_client.images import ImageLike, encode_images

Answer = TypeVar("Answer", bound=BaseModel)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 8.0
_GRACE_S = 5.0  # the service keeps its own deadline; this is for the way there and back


@dataclass(frozen=True, slots=True)
class Pause:
    """Not yet: ask again after this."""

    seconds: float


@dataclass(slots=True)
class Exchange(Generic[Answer]):
    """A request that is sent until it is answered, hopeless, or out of time."""

    path: str
    body: dict[str, Any]
    answer: type[Answer]
    timeout_s: float
    attempt: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """What remains of the caller's time."""
        return max(0.001, self.began + self.timeout_s - time.monotonic())

    @property
    def http_timeout_s(self) -> float:
        """How long one attempt may take; the service keeps the deadline itself."""
        return self.left_s + _GRACE_S

    def payload(self) -> dict[str, Any]:
        """The body of the next attempt; a repeated one may take what time is left."""
        return self.body if self.attempt == 0 else {**self.body, "timeout_s": self.left_s}

    def settle(self, outcome: httpx.Response | httpx.RequestError) -> Answer | Pause:
        """The answer, or how long to wait before the next attempt.

        Raises:
            ProxyGrmError: another attempt is of no use, or there is no time for one.
        """
        if isinstance(outcome, httpx.RequestError):
            error = _transport_error(outcome)
            retry_after = ""
        elif outcome.status_code == 200:
            return self._read(outcome)
        else:
            error = _problem(outcome)
            retry_after = outcome.headers.get("retry-after", "")
        pause_s = self._pause_s(retry_after)
        if not error.worth_retrying or pause_s >= self.left_s:
            raise error
        return Pause(pause_s)

    def _read(self, response: httpx.Response) -> Answer:
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as cause:
            raise UnexpectedAnswer("the answer is not one of this service's") from cause

    def _pause_s(self, retry_after: str) -> float:
        self.attempt += 1
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self.attempt) * random.uniform(0.5, 1.0)
        return max(pause, float(retry_after)) if retry_after.isdigit() else pause


def checked_url(url: str) -> str:
    """A service's address.

    Raises:
        ValueError: it can never be one.
    """
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no address of a service; for example http://127.0.0.1:8000")
    return url


def _transport_error(cause: httpx.RequestError) -> ProxyGrmError:
    """What the transport says, in this package's words."""
    kind = ServiceUnreachable if isinstance(cause, httpx.TransportError) else UnexpectedAnswer
    error = kind(f"the service gave no answer: {type(cause).__name__}")
    error.__cause__ = cause
    return error


Depth = Literal["full", "verdict"]
Order = Literal["given", "both", "adaptive", "escalate"]


class CallOptions(TypedDict, total=False):
    """What else every call takes.

    Attributes:
        id: given back in the answer.
        timeout_s: seconds for the whole call, retries included.
    """

    id: str
    priority: Literal["interactive", "batch"]
    timeout_s: float


class VerifyOptions(CallOptions, total=False):
    """What else `/verify` takes.

    Attributes:
        label: the response that is known to be better; with it comes a reward.
        evaluator: who is asked; the release's proxy unless another is named.
    """

    label: Position
    evaluator: str


class RubricOptions(CallOptions, total=False):
    """What else `/rubric` takes."""

    temperature: float
    seed: int


class ScoreOptions(RubricOptions, total=False):
    """What else `/score` takes.

    Attributes:
        rubric: to judge by: its text, its id (``rub_…``) or one that came from the service.
        depth: ``verdict`` writes no evaluation and is faster.
        order: ``both`` judges the swapped order too and averages; ``adaptive`` does so only while
            the verdict is in doubt before the evaluation is written.
        votes: passes an order; more than 1 needs a temperature above 0.
        require_consistent: with order ``both``, abstain when the orders disagree.
    """

    rubric: str | Rubric
    depth: Depth
    order: Order
    votes: int
    require_consistent: bool
    run_id: str
    evaluators: list[str]
    cache: Literal["use", "bypass"]


def score_exchange(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: ScoreOptions,
    timeout_s: float,
) -> Exchange[Judgement]:
    """``POST /score``."""
    body = _body(question, responses, images, {**options}, timeout_s)
    rubric = options.get("rubric")
    if rubric is not None:
        body["rubric"] = _given(rubric)
    return Exchange("/score", body, Judgement, body["timeout_s"])


def rubric_exchange(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: RubricOptions,
    timeout_s: float,
) -> Exchange[WrittenRubric]:
    """``POST /rubric``."""
    body = _body(question, responses, images, {**options}, timeout_s)
    return Exchange("/rubric", body, WrittenRubric, body["timeout_s"])


def verify_exchange(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: dict[str, Any],
    timeout_s: float,
) -> Exchange[Verification]:
    """``POST /verify``; the options have the rubric among them."""
    body = _body(question, responses, images, options, timeout_s)
    body["rubric"] = _given(body["rubric"])
    return Exchange("/verify", body, Verification, body["timeout_s"])


def _given(rubric: str | Rubric) -> dict[str, str]:
    if isinstance(rubric, Rubric):
        return {"text": rubric.text}
    return {"id": rubric} if rubric.startswith("rub_") else {"text": rubric}


def _body(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: dict[str, Any],
    timeout_s: float,
) -> dict[str, Any]:
    return {
        "question": question,
        "responses": list(responses),
        "images": encode_images(images),
        "timeout_s": timeout_s,
        **options,
    }


def _problem(response: httpx.Response) -> ProxyGrmError:
    try:
        document = response.json()
        kind = BY_CODE[document["code"]]
        return kind(str(document["detail"]), document.get("request_id"))
    except (ValueError, KeyError, TypeError):
        return UnexpectedAnswer(f"HTTP {response.status_code} without a problem document")
