"""What is asked. Strict: a field that is not known is refused."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from models.comparison import Position
from service.calls import Call, GivenRubric
from service.images import GivenImage
from service.judging import JudgingOptions
from service.judging.ranking import RankingOptions
from service.line_ids import MOST_CHARACTERS


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("an evaluator is named twice")
    return names


Identifier = Annotated[str, StringConstraints(min_length=1, max_length=MOST_CHARACTERS)]
NOT_BLANK, SHA256, RUBRIC_ID = r"\S", r"^[0-9a-f]{64}$", r"^rub_[0-9a-f]{24}$"

Response = Annotated[str, StringConstraints(pattern=NOT_BLANK)]
# An int, for as a literal 1 true would pass.
Label = Annotated[int | None, Field(ge=1, le=2, description="the better response, if it is known")]
Evaluators = Annotated[
    tuple[Identifier, ...],
    Field(max_length=16, description="names, each once; see `GET /evaluators`"),
    AfterValidator(_each_once),
]


class StrictRequest(BaseModel):
    """Unknown fields and other types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ImageIn(StrictRequest):
    """A picture, JPEG, PNG or WebP, in one of three ways."""

    data: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="base64 or a `data:image/…;base64,` URI"
    )
    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None, description="fetched, if this server lists its host"
    )
    sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
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


class RubricIn(StrictRequest):
    """A rubric to judge by: its text, or the id of one that this service has written or seen."""

    text: Annotated[str, StringConstraints(pattern=NOT_BLANK)] | None = None
    id: Annotated[str, StringConstraints(pattern=RUBRIC_ID)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.id is None):
            raise ValueError("give either text or id")
        return self

    def given(self) -> GivenRubric:
        """The rubric in the service's own words."""
        return GivenRubric(self.text, self.id)


class _QuestionIn(StrictRequest):
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

    run_id: Identifier | None = Field(
        default=None, description="counted together; see `GET /runs/{id}`"
    )
    rubric: RubricIn | None = Field(default=None, description="absent: the judge writes its own")
    depth: Literal["full", "verdict"] = Field(
        default="full", description="verdict: no evaluation is written, one token decides; faster"
    )
    order: Literal["given", "both", "adaptive", "escalate"] = Field(
        default="given",
        description="both: judged again with the responses swapped, probabilities averaged; "
        "adaptive: swapped only while the verdict, read before the evaluation, is in doubt; "
        "escalate: then votes and a stronger evaluator too, each while it is undecided",
    )
    votes: int = Field(
        default=1, ge=1, le=16, description="passes an order; more than 1 needs a temperature"
    )
    require_consistent: bool = Field(
        default=False, description="with order both: abstain when the two orders disagree"
    )
    evaluators: Evaluators = ()
    rubric_attempts: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description="rubrics to try until the evaluators reach the verdict by one alone; absent: "
        "as the settings say",
    )
    cache: Literal["use", "bypass"] = "use"

    @model_validator(mode="after")
    def _votes_differ(self) -> Self:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("votes > 1 needs temperature > 0: at 0 every vote is the same")
        if self.votes > 1 and self.order == "escalate":
            raise ValueError("order escalate takes votes of its own")
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
            self.evaluators,
            self.run_id,
            self.rubric_attempts,
        )


class RubricRequest(_SampledIn):
    """By what should these two responses be judged?"""

    evaluators: Evaluators = ()
    label: Label = None

    def call(self) -> Call:
        """The request in the service's own words."""
        options = JudgingOptions(
            temperature=self.temperature, seed=self.seed, priority=self.priority
        )
        images = tuple(image.given() for image in self.images)
        return Call(
            self.question,
            self.responses,
            images,
            options=options,
            timeout_s=self.timeout_s,
            evaluators=self.evaluators,
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
    evaluators: Evaluators = ()
    run_id: Identifier | None = Field(
        default=None, description="counted together; see `GET /runs/{id}`"
    )
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
            self.evaluators,
            self.run_id,
        )

    def options(self) -> RankingOptions:
        """When to stop comparing."""
        return RankingOptions(self.budget, self.confidence, self.seed)
