"""What can be asked, and how it looks on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict
from urllib.parse import quote

import proxy_grm_client as grm  # whose answers pydantic makes when the first is asked for
from proxy_grm_client.exchange import Exchange
from proxy_grm_client.images import ImageLike, encode_images

if TYPE_CHECKING:
    from proxy_grm_client.answers import (
        JobAccepted,
        JobStatus,
        Judgement,
        Position,
        Ranking,
        Rubric,
        Run,
        Verification,
        WrittenRubric,
    )

Depth = Literal["full", "verdict"]
Order = Literal["given", "both", "adaptive", "escalate"]
RankOrder = Literal["given", "both", "adaptive"]
Priority = Literal["interactive", "batch"]
Cache = Literal["use", "bypass"]


class CallOptions(TypedDict, total=False):
    """What else every call takes.

    Attributes:
        id: given back in the answer.
        timeout_s: seconds for the whole call, retries included.
    """

    id: str
    priority: Priority
    timeout_s: float


class VerifyOptions(CallOptions, total=False):
    """What else `/verify` takes.

    Attributes:
        label: the response that is known to be better; with it comes a reward.
        evaluator: who is asked; the release's proxy unless another is named.
    """

    label: Position
    evaluator: str


class SamplingOptions(CallOptions, total=False):
    """How the judge writes; at temperature 0, the default, it writes what is likeliest."""

    temperature: float
    seed: int


class RubricOptions(SamplingOptions, total=False):
    """What else `/rubric` takes.

    Attributes:
        evaluators: who is to say which response is better by the rubric alone.
        label: the response that is known to be better; each evaluator is held against it.
    """

    evaluators: list[str]
    label: Position


class ScoreOptions(SamplingOptions, total=False):
    """What else `/score` takes.

    Attributes:
        rubric: to judge by: its text, its id (``rub_…``) or one that came from the service.
        depth: ``verdict`` writes no evaluation and is faster.
        order: ``both`` judges the swapped order too and averages; ``adaptive`` does so only while
            the verdict is in doubt before the evaluation is written.
        votes: passes an order; more than 1 needs a temperature above 0.
        require_consistent: with order ``both``, abstain when the orders disagree.
        rubric_attempts: rubrics to try until the evaluators reach the verdict by one alone.
    """

    rubric: str | Rubric
    depth: Depth
    order: Order
    votes: int
    require_consistent: bool
    run_id: str
    evaluators: list[str]
    rubric_attempts: int
    cache: Cache


class RankOptions(CallOptions, total=False):
    """What else `/rank` takes.

    Attributes:
        rubric: to judge by; see `ScoreOptions`.
        order: of each comparison.
        budget: comparisons at most.
        confidence: stop when this share of all pairs is expected to stand in the right order.
        seed: of the first pairs.
    """

    rubric: str | Rubric
    depth: Depth
    order: RankOrder
    budget: int
    confidence: float
    seed: int
    run_id: str
    evaluators: list[str]
    cache: Cache


class RewardOptions(TypedDict, total=False):
    """What a trainer may say of every ranking or comparison; see `ScoreOptions`."""

    rubric: str | Rubric
    depth: Depth
    order: RankOrder
    run_id: str
    priority: Priority
    cache: Cache


class BatchLine(ScoreOptions, total=False):
    """One comparison of a batch: what `Client.score` takes, by name."""

    question: Required[str]
    responses: Required[Sequence[str]]
    images: Sequence[ImageLike]


def score_exchange(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: ScoreOptions,
    timeout_s: float,
) -> Exchange[Judgement]:
    """``POST /score``."""
    body = call_body(question, responses, images, {**options}, timeout_s)
    return Exchange("/score", body, grm.Judgement, body["timeout_s"])


def rubric_exchange(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: RubricOptions,
    timeout_s: float,
) -> Exchange[WrittenRubric]:
    """``POST /rubric``."""
    body = call_body(question, responses, images, {**options}, timeout_s)
    return Exchange("/rubric", body, grm.WrittenRubric, body["timeout_s"])


def verify_exchange(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: dict[str, Any],
    timeout_s: float,
) -> Exchange[Verification]:
    """``POST /verify``; the options have the rubric among them."""
    body = call_body(question, responses, images, options, timeout_s)
    return Exchange("/verify", body, grm.Verification, body["timeout_s"])


def rank_exchange(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: RankOptions,
    timeout_s: float,
) -> Exchange[Ranking]:
    """``POST /rank``."""
    body = call_body(question, responses, images, {**options}, timeout_s)
    return Exchange("/rank", body, grm.Ranking, body["timeout_s"])


def run_exchange(run_id: str, timeout_s: float) -> Exchange[Run]:
    """``GET /runs/{id}``."""
    return Exchange(f"/runs/{quote(run_id, safe='')}", None, grm.Run, timeout_s, "GET")


def source_exchange(url: str, timeout_s: float) -> Exchange[JobAccepted]:
    """``POST /jobs`` naming a source. Sent again it would be a second job."""
    return Exchange("/jobs", {"source": url}, grm.JobAccepted, timeout_s, repeatable=False)


def status_exchange(job_id: str, timeout_s: float) -> Exchange[JobStatus]:
    """``GET /jobs/{id}``."""
    return Exchange(job_path(job_id), None, grm.JobStatus, timeout_s, "GET")


def cancel_exchange(job_id: str, timeout_s: float) -> Exchange[JobStatus]:
    """``DELETE /jobs/{id}``."""
    return Exchange(job_path(job_id), None, grm.JobStatus, timeout_s, "DELETE")


def job_path(job_id: str) -> str:
    """Of the job; whatever the id is, of no other resource."""
    return f"/jobs/{quote(job_id, safe='')}"


def call_body(
    question: str,
    responses: Sequence[str],
    images: Sequence[ImageLike],
    options: dict[str, Any],
    timeout_s: float,
) -> dict[str, Any]:
    """A request on the wire.

    Raises:
        TypeError: the responses are a single text.
        OSError, TypeError, ValueError: of a picture; see `encode_images`.
    """
    if isinstance(responses, (str, bytes)):
        raise TypeError("responses: a list of texts, not a single one")
    body: dict[str, Any] = {
        "question": question,
        "responses": list(responses),
        "images": encode_images(images),
        "timeout_s": timeout_s,
        **options,
    }
    rubric = body.get("rubric")
    if isinstance(rubric, str):
        body["rubric"] = {"id" if rubric.startswith("rub_") else "text": rubric}
    elif rubric is not None and isinstance(rubric, grm.Rubric):
        body["rubric"] = {"text": rubric.text}
    return body
