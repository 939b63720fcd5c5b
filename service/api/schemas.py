"""The wire contract. Requests are strict: a field that is not known is refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from models.comparison import Position
from models.release import Release
from models.rubric import Rubric
from service.calls import Call, GivenRubric
from service.evaluators import OpinionStatus
from service.images import GivenImage
from service.judging import AbstentionReason, JudgingOptions, Stopped
from service.judging.ranking import Ranking, RankingOptions, Stop
from service.ranking import Ranked
from service.scoring import RubricWritten, Scored
from service.verifying import Verified

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Response = Annotated[str, StringConstraints(pattern=r"\S")]
# An int, for as a literal 1 true would pass.
Label = Annotated[int | None, Field(ge=1, le=2, description="the better response, if it is known")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Answer(BaseModel):
    """Read off the service's own objects, whose attributes have the wire's names."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class ImageIn(_Request):
    """A picture, JPEG, PNG or WebP, in one of three ways."""

    data: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="base64 or a `data:image/…;base64,` URI"
    )
    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None, description="fetched, if this server lists its host"
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="of the file of a picture that this server remembers"
    )

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if [self.data, self.url, self.sha256].count(None) != 2:
            raise ValueError("give one of data, url and sha256")
        return self

    def given(self) -> GivenImage:
        """The picture in the service's own words."""
        return GivenImage(self.data, self.url, self.sha256)


class RubricIn(_Request):
    """A rubric to judge by: its text, or the id of one that this service has written or seen."""

    text: Annotated[str, StringConstraints(pattern=r"\S")] | None = None
    id: Annotated[str, StringConstraints(pattern=r"^rub_[0-9a-f]{24}$")] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.id is None):
            raise ValueError("give either text or id")
        return self

    def given(self) -> GivenRubric:
        """The rubric in the service's own words."""
        return GivenRubric(self.text, self.id)


class _QuestionIn(_Request):
    question: str
    images: Annotated[tuple[ImageIn, ...], Field(max_length=64)] = Field(
        default=(), description="none: a question about text alone"
    )
    id: Identifier | None = Field(default=None, description="given back; generated when absent")
    priority: Literal["interactive", "batch"] = "interactive"
    timeout_s: float = Field(
        default=120, gt=0, le=3600, description="seconds until 504, waiting included"
    )


class _ComparisonIn(_QuestionIn):
    responses: tuple[Response, Response] = Field(description="the two candidates, neither empty")


class _SampledIn(_ComparisonIn):
    temperature: float = Field(default=0, ge=0, le=2)
    seed: int = Field(default=0, ge=0, lt=2**32)


class ScoreRequest(_SampledIn):
    """Which of two responses is better?"""

    run_id: Identifier | None = Field(default=None, description="groups the requests of one run")
    rubric: RubricIn | None = Field(default=None, description="absent: the judge writes its own")
    depth: Literal["full", "verdict"] = Field(
        default="full", description="verdict: no evaluation is written, one token decides; faster"
    )
    order: Literal["given", "both", "adaptive"] = Field(
        default="given",
        description="both: judged again with the responses swapped, probabilities averaged; "
        "adaptive: swapped only while the verdict, read before the evaluation, is in doubt",
    )
    votes: int = Field(
        default=1, ge=1, le=16, description="passes an order; more than 1 needs a temperature"
    )
    require_consistent: bool = Field(
        default=False, description="with order both: abstain when the two orders disagree"
    )
    evaluators: tuple[Identifier, ...] = Field(
        default=(), description="none are configured on this server"
    )
    cache: Literal["use", "bypass"] = "use"

    @model_validator(mode="after")
    def _votes_differ(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("votes > 1 needs temperature > 0: at 0 every vote is the same")
        return self

    def call(self) -> Call:
        """The request in the service's own words."""
        options = JudgingOptions(
            depth=self.depth,
            order=self.order,
            votes=self.votes,
            temperature=self.temperature,
            seed=self.seed,
            require_consistent=self.require_consistent,
            priority=self.priority,
        )
        rubric = self.rubric.given() if self.rubric else None
        images = tuple(image.given() for image in self.images)
        return Call(
            self.question,
            self.responses,
            images,
            rubric,
            options,
            self.timeout_s,
            self.cache == "use",
        )


class RubricRequest(_SampledIn):
    """By what should these two responses be judged?"""

    evaluators: tuple[Identifier, ...] = Field(
        default=(), description="none are configured on this server"
    )
    label: Label = None

    def call(self) -> Call:
        """The request in the service's own words."""
        options = JudgingOptions(
            temperature=self.temperature, seed=self.seed, priority=self.priority
        )
        images = tuple(image.given() for image in self.images)
        return Call(
            self.question, self.responses, images, options=options, timeout_s=self.timeout_s
        )


class VerifyRequest(_ComparisonIn):
    """Which response is better, by this rubric alone?"""

    rubric: RubricIn = Field(description="its text is cut to what stands between the tags")
    label: Label = None
    evaluator: Identifier = Field(default="proxy", description="who is asked")

    @property
    def better(self) -> Position | None:
        """The label as a position."""
        return None if self.label is None else 1 if self.label == 1 else 2

    def call(self) -> Call:
        """The request in the service's own words."""
        return Call(
            self.question,
            self.responses,
            tuple(image.given() for image in self.images),
            self.rubric.given(),
            JudgingOptions(priority=self.priority),
            self.timeout_s,
        )


class RankRequest(_QuestionIn):
    """In which order of quality do these responses stand?"""

    responses: Annotated[tuple[Response, ...], Field(min_length=2, max_length=64)] = Field(
        description="2 to 64 candidates, none empty; equal ones are not compared"
    )
    rubric: RubricIn | None = Field(
        default=None, description="absent: the judge writes one for all of them"
    )
    depth: Literal["full", "verdict"] = "full"
    order: Literal["given", "both", "adaptive"] = Field(
        default="given", description="of each comparison; who is read first is balanced anyway"
    )
    budget: int | None = Field(
        default=None,
        ge=1,
        le=2016,
        description="comparisons at most; absent: all pairs of up to 6, of N more 0.75 N log2 N",
    )
    confidence: float = Field(
        default=0.98,
        ge=0.5,
        le=1,
        description="stop when this share of all pairs is expected to stand in the right order",
    )
    evaluators: tuple[Identifier, ...] = Field(
        default=(), description="none are configured on this server"
    )
    run_id: Identifier | None = Field(default=None, description="groups the requests of one run")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the first pairs")
    cache: Literal["use", "bypass"] = "use"

    def call(self) -> Call:
        """The request in the service's own words."""
        return Call(
            self.question,
            self.responses,
            tuple(image.given() for image in self.images),
            self.rubric.given() if self.rubric else None,
            JudgingOptions(depth=self.depth, order=self.order, priority=self.priority),
            self.timeout_s,
            self.cache == "use",
        )

    def options(self) -> RankingOptions:
        """When to stop comparing."""
        return RankingOptions(self.budget, self.confidence, self.seed)


class CriterionOut(_Answer):
    """One line of a rubric; weights add up to 1."""

    name: str
    description: str
    weight: float


class RubricOut(_Answer):
    """The criteria as text, and as far as they could be read."""

    id: str
    text: str
    criteria: tuple[CriterionOut, ...]
    justification: str | None


class VerdictOut(_Answer):
    """One pass; `preferred` and `probability` speak of the responses as they were sent."""

    order: Literal["given", "swapped"]
    preferred: Position | None
    probability: float | None
    text: str


class EvaluatorOut(_Answer):
    """What an evaluator says, given the rubric."""

    name: str
    status: OpinionStatus
    preferred: Position | None
    probability: float | None
    latency_s: float


class ReleaseOut(_Answer):
    """Which release judged."""

    name: str
    fingerprint: str
    purpose: Literal["demo", "production"]

    @classmethod
    def of(cls, release: Release) -> Self:
        """The release on the wire."""
        config = release.config
        return cls(name=config.name, fingerprint=release.fingerprint, purpose=config.purpose)


class UsageOut(_Answer):
    """Tokens as the engine counted them, and how often it was asked."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    calls: int


class TimingOut(_Answer):
    """Seconds in each stage."""

    queue_s: float
    image_s: float
    engine_s: float
    total_s: float


class ScoreAnswer(_Answer):
    """A judgement. `preferred` is 1 exactly when `probability` >= 0.5."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    preferred: Position | None
    probability: float | None = Field(description="P(response 1 is better)")
    order_consistent: bool | None = Field(description="null where one order was read")
    stopped: Stopped = Field(description="sure: adaptive, and no need of the swapped order")
    rubric: RubricOut | None
    evaluation: str | None
    verdicts: tuple[VerdictOut, ...]
    evaluators: tuple[EvaluatorOut, ...]
    agreement: float | None
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut
    cached: bool

    @classmethod
    def of(cls, scored: Scored, request_id: str, release: Release) -> Self:
        """The judgement on the wire."""
        judgement = scored.judgement
        return cls(
            id=request_id,
            status="ok" if judgement.reason is None else "abstain",
            reason=judgement.reason,
            preferred=judgement.preferred,
            probability=judgement.probability,
            order_consistent=judgement.order_consistent,
            stopped=judgement.stopped,
            rubric=_rubric(judgement.rubric),
            evaluation=judgement.evaluation,
            verdicts=tuple(VerdictOut.model_validate(found) for found in judgement.passes),
            evaluators=(),
            agreement=None,
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(judgement.usage),
            timing=TimingOut.model_validate(scored.timing),
            cached=scored.cached,
        )


class RubricAnswer(_Answer):
    """A rubric; null with a `reason` when none could be read."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    rubric: RubricOut | None
    evaluators: tuple[EvaluatorOut, ...]
    agreement: float | None
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut

    @classmethod
    def of(cls, done: RubricWritten, request_id: str, release: Release) -> Self:
        """The rubric on the wire."""
        return cls(
            id=request_id,
            status="ok" if done.written.reason is None else "abstain",
            reason=done.written.reason,
            rubric=_rubric(done.written.rubric),
            evaluators=(),
            agreement=None,
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(done.written.usage),
            timing=TimingOut.model_validate(done.timing),
        )


class VerifyAnswer(_Answer):
    """An evaluator's opinion. `preferred` is 1 exactly when `probability` >= 0.5."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    preferred: Position | None
    probability: float | None = Field(description="P(response 1 is better by the rubric)")
    reward: float | None = Field(
        description="+1 when `preferred` is the label, -1 when not; null without either"
    )
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut

    @classmethod
    def of(cls, verified: Verified, request_id: str, release: Release) -> Self:
        """The opinion on the wire."""
        opinion = verified.opinion
        return cls(
            id=request_id,
            status="ok" if opinion.status == "ok" else "abstain",
            reason=opinion.reason,
            preferred=opinion.preferred,
            probability=opinion.probability,
            reward=verified.reward,
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(opinion.usage),
            timing=TimingOut.model_validate(verified.timing),
        )


class RankedOut(_Answer):
    """Where one response stands."""

    index: int
    strength: float = Field(description="Bradley-Terry, in nats; the mean of all is 0")
    interval: tuple[float, float] = Field(description="95%, of the strength")
    win_rate: float = Field(description="mean P(better) over all others")
    reward: float = Field(description="net win rate, -1..1; the mean of all is 0")


class ComparedOut(_Answer):
    """One comparison, by index; `probability` is P(`first` is better)."""

    first: int
    second: int
    probability: float | None
    status: Literal["ok", "abstain"]


class SpentOut(_Answer):
    """What a ranking cost; tokens read and written."""

    comparisons: int
    tokens: int


class RankAnswer(_Answer):
    """A ranking, best first; empty when no rubric to judge by could be written."""

    id: str
    status: Literal["ok", "abstain"]
    reason: AbstentionReason | None
    ranking: tuple[int, ...]
    scores: tuple[RankedOut, ...] = Field(description="in the order in which they were sent")
    comparisons: tuple[ComparedOut, ...]
    cycles: tuple[tuple[int, int, int], ...] = Field(
        description="each of the three beats the next, and the last the first"
    )
    stopped: Stop | None = Field(description="why no more were compared")
    spent: SpentOut
    rubric: RubricOut | None
    release: ReleaseOut
    usage: UsageOut
    timing: TimingOut

    @classmethod
    def of(cls, ranked: Ranked, request_id: str, release: Release) -> Self:
        """The ranking on the wire."""
        found, usage = ranked.ranking, ranked.usage
        met = found.met if found is not None else ()
        return cls(
            id=request_id,
            status="ok" if ranked.reason is None else "abstain",
            reason=ranked.reason,
            ranking=found.order if found is not None else (),
            scores=_scores(found) if found is not None else (),
            comparisons=tuple(
                ComparedOut(
                    first=one.first,
                    second=one.second,
                    probability=one.probability,
                    status="abstain" if one.probability is None else "ok",
                )
                for one in met
            ),
            cycles=found.cycles if found is not None else (),
            stopped=found.stopped if found is not None else None,
            spent=SpentOut(
                comparisons=len(met), tokens=usage.prompt_tokens + usage.completion_tokens
            ),
            rubric=_rubric(ranked.rubric),
            release=ReleaseOut.of(release),
            usage=UsageOut.model_validate(usage),
            timing=TimingOut.model_validate(ranked.timing),
        )


def _scores(found: Ranking) -> tuple[RankedOut, ...]:
    intervals = found.strengths.interval_N2
    return tuple(
        RankedOut(
            index=index,
            strength=float(strength),
            interval=(float(intervals[index, 0]), float(intervals[index, 1])),
            win_rate=float(found.win_rate_N[index]),
            reward=float(found.reward_N[index]),
        )
        for index, strength in enumerate(found.strengths.mean_N)
    )


class FieldError(_Answer):
    """Where a request is wrong, and how."""

    field: str
    problem: str


class Problem(_Answer):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[FieldError, ...] | None = None


class LineError(_Answer):
    """A line of a batch that got no judgement; `line` counts from 1."""

    id: str | None
    line: int
    error: Problem


def _rubric(rubric: Rubric | None) -> RubricOut | None:
    return None if rubric is None else RubricOut.model_validate(rubric)
