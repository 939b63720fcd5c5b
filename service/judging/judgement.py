"""What is asked of a judge and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.calibration import Depth, Order
from models.comparison import Position
from models.rubric import Rubric
from service.engines import Priority

AbstentionReason = Literal["unreadable", "truncated", "disagreement"]
Stopped = Literal["complete", "sure", "agreed", "voted", "evaluator", "undecided"]
"""Why no more was asked. ``complete``: all that the order asks for was read. ``sure``: the first
pass left no doubt. ``agreed``, ``voted``, ``evaluator``: the swapped order, the votes or the
stronger evaluator decided. ``undecided``: not even they did."""

Orders = Literal["given", "both", "adaptive", "escalate"]


@dataclass(frozen=True, slots=True)
class Escalation:
    """How order ``escalate`` goes on while it is undecided.

    Attributes:
        band: undecided, once more than one pass was read, is a probability nearer to 0.5.
        votes: further passes an order.
        temperature: of these.
    """

    band: float = 0.25
    votes: int = 4
    temperature: float = 0.7


@dataclass(frozen=True, slots=True)
class Drafting:
    """How the judge drafts a rubric of its own, where not as the rest of its judgement."""

    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class JudgingOptions:
    """How a comparison is judged.

    Attributes:
        order: ``adaptive`` reads the swapped order only while the verdict, read before the
            evaluation is written, is in doubt. ``escalate`` does too, and then takes votes.
        band: in doubt is a probability nearer to 0.5 than this.
        votes: passes per order; more than one needs a temperature above 0.
        require_consistent: abstain when the two orders prefer different responses.
        drafting: samples a rubric first; what follows it is written by it as by any other.
    """

    depth: Depth = "full"
    order: Orders = "given"
    band: float = 0.4
    votes: int = 1
    temperature: float = 0.0
    seed: int = 0
    require_consistent: bool = False
    priority: Priority = "interactive"
    escalation: Escalation = Escalation()
    drafting: Drafting | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the engine counted them, and how often it was asked."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    calls: int = 0

    def __add__(self, more: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + more.prompt_tokens,
            self.completion_tokens + more.completion_tokens,
            self.cached_tokens + more.cached_tokens,
            self.calls + more.calls,
        )


@dataclass(frozen=True, slots=True)
class Pass:
    """One reading of the comparison in one order.

    Attributes:
        preferred: the better response *of the comparison as it was asked*,
            swapped verdicts mirrored; None when the pass is an abstention.
        probability: calibrated P(response 1 is better), mirrored likewise.
        text: what the judge wrote.
        early: calibrated P(response 1 is better) before the evaluation, where it was asked for.
        label_mass: share of the verdict token's probability that lies on the two labels.
        surprisal: the largest, in nats, of a word of its own that the judge had before it when it
            gave the verdict; None where it had none.
    """

    order: Order
    text: str
    rubric: Rubric | None = None
    evaluation: str | None = None
    preferred: Position | None = None
    probability: float | None = None
    label_mass: float | None = None
    surprisal: float | None = None
    early: float | None = None
    reason: AbstentionReason | None = None
    usage: Usage = Usage()
    injection_attempts: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """Rubric + evaluation + verdict + probability for one comparison.

    ``preferred`` is 1 exactly when ``probability`` is at least 0.5; both are None
    exactly when there is a ``reason``.
    """

    passes: tuple[Pass, ...]
    rubric: Rubric | None
    evaluation: str | None
    preferred: Position | None
    probability: float | None
    order_consistent: bool | None
    stopped: Stopped
    reason: AbstentionReason | None
    usage: Usage
    injection_attempts: int


@dataclass(frozen=True, slots=True)
class WrittenRubric:
    """A rubric on its own; `reason` says why when there is none."""

    rubric: Rubric | None
    reason: AbstentionReason | None
    usage: Usage
    injection_attempts: int
