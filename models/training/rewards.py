"""Rewards for GRPO: accuracy, the proxy's agreement, format, and ways to add them up.

Accuracy is +1 when the judgement's verdict is the label and -1 otherwise; an unreadable judgement
has no verdict and did not find the label, so it is -1: were it nothing, a judge in doubt would do
best to write nonsense. The proxy's agreement is +1 or -1, and None when there is no rubric to show
it or it gives no opinion: somebody else's failure is not a score. Format is 1 or 0.

Source: Proxy-GRM (arXiv 2603.16600); `EXPLICIT` holds the aggregations of its published code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from models.comparison import Position
from models.errors import UnreadableJudgement
from models.judgement import RUBRIC_END, Part, read_judgement, read_rubric
from models.rubric import Rubric

FORMAT_WEIGHT = 0.5

_WHOLE_RUBRIC = re.compile(r"\A\s*<rubric>.*?</rubric>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the proxy said about a case under a rubric.

    Attributes:
        preferred: its verdict.
        probability: its P(response 1 is better).
    """

    preferred: Position
    probability: float


@dataclass(frozen=True, slots=True)
class Components:
    """One rollout's rewards before they are added up.

    Attributes:
        accuracy: +1 or -1.
        proxy: +1, -1, or None without an opinion.
        proxy_margin: 2 P(label) - 1 of the proxy, -1..1; None without an opinion.
        format: 1 or 0.
    """

    accuracy: float
    proxy: float | None
    proxy_margin: float | None
    format: float


def components(
    text: str, label: Position, opinion: Opinion | None, begins_with: Part = "rubric"
) -> Components:
    """Reads one rollout.

    Args:
        text: what the model wrote.
        label: the better response.
        opinion: the proxy's, given the rubric that `rubric_of` finds in the text.
        begins_with: ``evaluation`` for a proxy's or a rubric-given rollout.
    """
    try:
        preferred = read_judgement(text, begins_with).preferred
        readable = True
    except UnreadableJudgement:
        preferred, readable = None, False
    proxy = margin = None
    if opinion is not None:
        proxy = 1.0 if opinion.preferred == label else -1.0
        of_label = opinion.probability if label == 1 else 1.0 - opinion.probability
        margin = 2.0 * of_label - 1.0
    return Components(
        accuracy=1.0 if preferred == label else -1.0,
        proxy=proxy,
        proxy_margin=margin,
        format=1.0 if readable else 0.0,
    )


def rubric_of(text: str) -> Rubric | None:
    """The rubric that a rollout begins with; None when it has none that is closed and readable.

    Only what stands before the first ``</rubric>`` counts: the verdict must never reach the proxy.
    """
    if RUBRIC_END not in text:
        return None
    found = _WHOLE_RUBRIC.match(text)
    try:
        return read_rubric(found.group()) if found else None
    except UnreadableJudgement:
        return None


Aggregate = Callable[[Components], float]

EXPLICIT: dict[str, tuple[float, float, float, float]] = {
    "0": (2.0, 0.0, 0.0, -2.0),
    "1": (2.0, -2.0, -2.0, -2.0),
    "2": (1.0, -1.0, -1.0, -1.0),
    "3": (2.5, -0.5, 0.0, -2.0),
    "4": (2.5, -0.5, -0.5, -2.0),
    "5": (2.5, -0.5, -0.5, -3.0),
    "6": (2.0, -0.5, 0.0, -2.0),
    "7": (1.5, 0.5, -1.0, -1.0),
    "8": (1.5, 0.5, -1.5, -1.0),
    "9": (1.5, 0.5, -1.5, -2.0),
    "10": (1.0, 0.5, -1.0, -1.0),
}
"""By name: totals without format where (accuracy, proxy) is (+, +), (+, -), (-, +), (-, -)."""


def implicit(parts: Components) -> float:
    """The plain sum, the one the paper reports best; an abstaining proxy adds nothing."""
    return parts.accuracy + (parts.proxy or 0.0) + FORMAT_WEIGHT * parts.format


def no_proxy(parts: Components) -> float:
    """Accuracy and format alone."""
    return parts.accuracy + FORMAT_WEIGHT * parts.format


def soft(parts: Components) -> float:
    """Ours: the proxy's margin in place of its verdict.

    A rubric that leaves the proxy undecided earns nothing instead of a coin's toss, and the
    eight rollouts of a prompt are told apart by more than two values.
    """
    return parts.accuracy + (parts.proxy_margin or 0.0) + FORMAT_WEIGHT * parts.format


def explicit(name: str) -> Aggregate:
    """A table of joint values; an abstaining proxy counts as halfway between its two opinions."""
    both, only_accuracy, only_proxy, neither = EXPLICIT[name]

    def total(parts: Components) -> float:
        agreed, disagreed = (both, only_accuracy) if parts.accuracy > 0 else (only_proxy, neither)
        if parts.proxy is None:
            joint = (agreed + disagreed) / 2
        else:
            joint = agreed if parts.proxy > 0 else disagreed
        return joint + FORMAT_WEIGHT * parts.format

    return total


AGGREGATIONS: dict[str, Aggregate] = {
    "implicit": implicit,
    "none": no_proxy,
    "soft": soft,
    **{f"explicit-{name}": explicit(name) for name in EXPLICIT},
}
"""Every way to make one reward, by the name that a recipe uses."""
