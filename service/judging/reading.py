"""From what an engine generated to a pass: read strictly, then calibrated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.calibration import Order, Platt
from models.errors import UnreadableJudgement
from models.formats import OutputFormat
from models.judgement import Part, read_rubric
from models.rubric import Rubric
from service.engines import Generation
from service.judging.judgement import AbstentionReason, Pass, Usage
from service.judging.probability import label_mass, mirrored, probability_of_first


@dataclass(frozen=True, slots=True)
class Start:
    """What a judge has written already when it is asked to go on.

    Attributes:
        text: with which its answer begins.
        surprisal: the largest of its own words so far, in nats, where they are known.
    """

    text: str = ""
    surprisal: float | None = None

    def then(self, surprisal: float | None) -> float | None:
        """The largest surprisal once more is written."""
        known = [one for one in (self.surprisal, surprisal) if one is not None]
        return max(known, default=None)


def read_pass(
    generation: Generation,
    written_in: OutputFormat,
    begins_with: Part,
    found: Pass,
    calibration: Platt,
) -> Pass:
    """A pass with the judgement that was written; one that cannot be read is an abstention."""
    try:
        written = written_in.read(generation.text, begins_with)
    except UnreadableJudgement:
        return replace(found, reason=_abstention(generation))
    found = replace(found, rubric=written.rubric, evaluation=written.evaluation)
    return with_verdict(found, generation, calibration)


def begun(order: Order, generation: Generation, start: Start) -> Pass:
    """A pass whose verdict is still to be read."""
    return Pass(
        order,
        start.text + generation.text,
        surprisal=start.then(generation.surprisal),
        usage=usage_of(generation),
    )


def with_verdict(found: Pass, generation: Generation, calibration: Platt) -> Pass:
    """The pass with its verdict and probability, from the label at the verdict token."""
    labels = generation.labels
    if labels is None:  # the verdict is not made of the release's label token
        return replace(found, reason="unreadable")
    first = calibration.apply(probability_of_first(labels), found.surprisal)
    probability = mirrored(first, found.order)
    return replace(
        found,
        probability=probability,
        preferred=1 if probability >= 0.5 else 2,
        label_mass=label_mass(labels),
    )


def read_rubric_alone(generation: Generation) -> tuple[Rubric | None, AbstentionReason | None]:
    """A rubric, or why there is none."""
    try:
        return read_rubric(generation.text), None
    except UnreadableJudgement:
        return None, _abstention(generation)


def usage_of(generation: Generation) -> Usage:
    """What one generation cost."""
    return Usage(
        generation.prompt_tokens, generation.completion_tokens, generation.cached_tokens, calls=1
    )


def _abstention(generation: Generation) -> AbstentionReason:
    return "truncated" if generation.truncated else "unreadable"
