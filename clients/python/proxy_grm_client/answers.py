"""What comes back. Lenient: fields that a newer service adds are kept, not refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from proxy_grm_client.errors import ProxyGrmError

Position = Literal[1, 2]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class Criterion(_Answer):
    """One line of a rubric; the weights of a rubric add up to 1."""

    name: str
    description: str
    weight: float


class RubricRecord(_Answer):
    """How often evaluators reached the verdict, or the label, by a rubric alone."""

    opinions: int
    agreed: int


class Rubric(_Answer):
    """Weighted criteria; `criteria` is empty where they could not be read out of `text`.

    Attributes:
        record: None while no evaluator had an opinion by it.
    """

    id: str
    text: str
    criteria: tuple[Criterion, ...] = ()
    justification: str | None = None
    record: RubricRecord | None = None


class Verdict(_Answer):
    """One pass of the judge, mirrored where it read the responses swapped.

    Attributes:
        label_mass: share of the verdict token's probability that lies on 1 and 2.
        surprisal: the largest, in nats, of a word of its own that the judge had before the verdict;
            None where there was none. Where it is high the judge doubted what it wrote.
    """

    order: str
    preferred: Position | None
    probability: float | None
    label_mass: float | None = None
    surprisal: float | None = None
    text: str


class Release(_Answer):
    """Which release judged; one whose purpose is ``demo`` is no judge of real pictures."""

    name: str
    fingerprint: str
    purpose: str


class Usage(_Answer):
    """Tokens as the engine counted them, and how often it was asked; all 0 from the cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    calls: int = 0


class EvaluatorVerdict(_Answer):
    """What an evaluator says, given the rubric; a `status` that is not ``ok`` is no verdict.

    Attributes:
        status: ``ok``, ``abstain`` with a `reason`, ``timeout`` or ``unavailable``.
        probability: also None where the evaluator only says which response is better.
    """

    name: str
    status: str
    reason: str | None = None
    preferred: Position | None
    probability: float | None
    label_mass: float | None = None
    latency_s: float
    usage: Usage


class CheckedEvaluator(EvaluatorVerdict):
    """What an evaluator says, held against the label; `correct` is None without one of them."""

    correct: bool | None = None


class Panel(_Answer):
    """What judge and evaluators come to, by their weights.

    Attributes:
        agreement: share of the weight that prefers the same.
    """

    preferred: Position
    probability: float
    agreement: float


class Attempt(_Answer):
    """A rubric that was tried on the evaluators.

    Attributes:
        rubric: its id; None where none could be read.
        preferred: the judge's own verdict by it.
        agreement: share of the opinions that prefer the same; None without either.
    """

    rubric: str | None
    preferred: Position | None
    agreement: float | None


class Gate(_Answer):
    """How the rubric gate came to the judgement: it is the one of the highest agreement.

    Attributes:
        stopped: why no further rubric was drafted: ``agreed``, ``attempts``, ``unchecked`` (no
            verdict to reach, or no evaluator with an opinion), ``deadline`` or ``failed``.
    """

    attempts: tuple[Attempt, ...]
    stopped: str


class Timing(_Answer):
    """Seconds in each stage on the service's side."""

    queue_s: float
    image_s: float
    engine_s: float
    total_s: float


class Judgement(_Answer):
    """Which response is better, why, and how sure.

    Attributes:
        status: ``ok``, or ``abstain`` with a `reason`: then there is no verdict,
            and `preferred` and `probability` are None. Never count that as a score.
        preferred: 1 exactly when `probability` >= 0.5.
        probability: P(response 1 is better), 0..1.
        order_consistent: None where one order was read.
        stopped: ``sure`` where orders ``adaptive`` and ``escalate`` had no need of the swapped
            one; of ``escalate`` also ``agreed``, ``voted``, ``evaluator`` or ``undecided``.
        agreement: share of the evaluators' opinions that prefer what the judge does.
        panel: None where no evaluator was asked.
        low_label_mass: a verdict token had little probability on 1 and 2: the judge had
            something else in mind than a verdict.
        gate: None where not more than one rubric was to be tried.
    """

    id: str
    status: Literal["ok", "abstain"]
    reason: str | None
    preferred: Position | None
    probability: float | None
    order_consistent: bool | None
    stopped: str = "complete"
    rubric: Rubric | None
    evaluation: str | None
    verdicts: tuple[Verdict, ...]
    evaluators: tuple[EvaluatorVerdict, ...] = ()
    agreement: float | None = None
    panel: Panel | None = None
    low_label_mass: bool = False
    gate: Gate | None = None
    release: Release
    usage: Usage
    timing: Timing
    cached: bool


class WrittenRubric(_Answer):
    """A rubric on its own; None with a `reason` when none could be read.

    Attributes:
        agreement: share of the evaluators' opinions on the majority's side.
    """

    id: str
    status: Literal["ok", "abstain"]
    reason: str | None
    rubric: Rubric | None
    evaluators: tuple[CheckedEvaluator, ...] = ()
    agreement: float | None = None
    release: Release
    usage: Usage
    timing: Timing


class Verification(_Answer):
    """What an evaluator makes of the same comparison, shown nothing but the rubric.

    Attributes:
        status: ``ok``, or ``abstain`` with a `reason`: then `preferred`,
            `probability` and `reward` are None. Never count that as a score.
        probability: P(response 1 is better by the rubric), 0..1.
        reward: +1 when `preferred` is the label, -1 when it is not; None without a label.
    """

    id: str
    status: Literal["ok", "abstain"]
    reason: str | None
    preferred: Position | None
    probability: float | None
    label_mass: float | None = None
    reward: float | None
    release: Release
    usage: Usage
    timing: Timing


class Ranked(_Answer):
    """Where one response of a ranking stands.

    Attributes:
        index: of the response, from 0.
        status: ``abstain`` where no comparison of it could be read: then it is not in the ranking,
            and everything else here is None.
        strength: Bradley-Terry, in nats, with its 95% `interval`.
        win_rate: mean P(better) over all others.
        reward: net win rate, -1..1; the mean of all is 0.
    """

    index: int
    status: Literal["ok", "abstain"]
    strength: float | None
    interval: tuple[float, float] | None
    win_rate: float | None
    reward: float | None


class RankOpinion(_Answer):
    """What an evaluator says of one comparison: 1 for `first`, 2 for `second`."""

    name: str
    status: str
    preferred: Position | None
    probability: float | None


class Compared(_Answer):
    """One comparison of a ranking, by index; `probability` is P(`first` is better).

    Attributes:
        agreement: share of the evaluators' opinions that prefer what the judge does.
    """

    first: int
    second: int
    probability: float | None
    status: str
    evaluators: tuple[RankOpinion, ...] = ()
    agreement: float | None = None


class Heard(_Answer):
    """An evaluator over all comparisons of a ranking: how its opinions ended.

    Attributes:
        agreement: share of them that prefer what the judge does.
    """

    name: str
    ok: int
    abstain: int
    timeout: int
    unavailable: int
    agreement: float | None
    usage: Usage


class RankPanel(_Answer):
    """The ranking that judge and evaluators come to, by their weights in each comparison."""

    ranking: tuple[int, ...]
    scores: tuple[Ranked, ...]
    cycles: tuple[tuple[int, int, int], ...]


class Spent(_Answer):
    """What a ranking cost."""

    comparisons: int
    tokens: int


class Ranking(_Answer):
    """Responses in order of quality.

    Attributes:
        status: ``ok``, or ``abstain`` with a `reason`: then `ranking` and `scores`
            are empty. Never count that as a score.
        ranking: indices from 0, best first.
        scores: in the order in which the responses were sent.
        cycles: of each three, each beats the next and the last the first.
        stopped: why no more were compared.
        agreement: share of all opinions that prefer what the judge does in their comparison.
        panel: None where no evaluator had an opinion.
    """

    id: str
    status: Literal["ok", "abstain"]
    reason: str | None
    ranking: tuple[int, ...]
    scores: tuple[Ranked, ...]
    comparisons: tuple[Compared, ...]
    cycles: tuple[tuple[int, int, int], ...] = ()
    stopped: str | None = None
    evaluators: tuple[Heard, ...] = ()
    agreement: float | None = None
    panel: RankPanel | None = None
    spent: Spent
    rubric: Rubric | None
    release: Release
    usage: Usage
    timing: Timing


class Rate(_Answer):
    """A share of `n`; None of nothing."""

    n: int
    rate: float | None


class ImageReliance(_Answer):
    """What became of the judgements that were made again with the images blanked.

    Attributes:
        changed: verdicts that became another, where one could be read.
        mean_shift: mean |P(with the images) - P(without)|.
        abstained: how many could not be read without the images.
    """

    n: int
    changed: Rate
    mean_shift: float | None
    abstained: int


class Run(_Answer):
    """Whether the judge of a run is being fooled, over its judgements by the release served now.

    Attributes:
        judgements: each comparison of a ranking is one.
        abstentions: by reason.
        injection_attempts: judgements with candidate text that tried to act as more than text.
        first_position: passes that prefer what they read first.
        longer_wins: verdicts for the longer response.
        longer_wins_baseline: the same of everything else that this release has judged.
        image_reliance: None while nothing was probed.
    """

    id: str
    judgements: int
    abstained: Rate
    abstentions: dict[str, int]
    injection_attempts: Rate
    first_position: Rate
    longer_wins: Rate
    longer_wins_baseline: Rate
    image_reliance: ImageReliance | None
    release: Release


@dataclass(frozen=True, slots=True)
class FailedLine:
    """A line of a batch or a job that got no judgement. It is not a score.

    Attributes:
        id: the line's own, if it has one.
        line: its place in the batch, from 1.
        error: what is wrong with it, or why it could not be judged in time.
    """

    id: str | None
    line: int
    error: ProxyGrmError
    status: Literal["error"] = "error"


LineResult = Judgement | FailedLine


class JobAccepted(_Answer):
    """A job that will be worked on; `id` is by what to ask for it."""

    id: str
    state: str


class JobCounts(_Answer):
    """Lines of a job by what came of them; the rest of `total` has no result yet."""

    total: int
    ok: int
    abstain: int
    error: int


class JobStatus(_Answer):
    """How far a job has come.

    Attributes:
        state: ``queued``, ``running``, ``done``, ``cancelled`` or ``failed``.
        eta_s: seconds; None while nobody can tell.
        reason: why it failed.
    """

    id: str
    state: str
    counts: JobCounts
    eta_s: float | None
    reason: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "cancelled", "failed")
