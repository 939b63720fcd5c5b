"""What is counted of the judgements of one run, and the rates that come of it.

A judge can be fooled without a single judgement looking wrong: by what it reads first, by length,
by text that talks to it, by answers it need not look at the image for. Over a run it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from models.comparison import Comparison
from service.judging import Judgement, Pass

Counts = dict[str, float]
"""Sums by name, as they are kept; what is missing is 0."""

ProbeOutcome = Literal["same", "changed", "abstain", "failed", "skipped"]
"""Whether the verdict without the image is the one with it; ``skipped``: others were running."""


def counts_of(comparison: Comparison, judgement: Judgement) -> Counts:
    """What one judgement adds."""
    found: Counts = {"judgements": 1, "injected": float(judgement.injection_attempts > 0)}
    if judgement.reason is not None:
        found[judgement.reason] = 1
    read = [read_first(one) for one in judgement.passes if one.preferred is not None]
    found |= {"verdicts": len(read), "read_first": sum(read)}
    longer = longer_wins(comparison, judgement)
    if longer is not None:
        found |= {"lengths_differ": 1, "longer_wins": float(longer)}
    return {name: amount for name, amount in found.items() if amount}


def read_first(found: Pass) -> bool:
    """Whether a pass prefers the response that it read first."""
    return (found.preferred == 1) == (found.order == "given")


def longer_wins(comparison: Comparison, judgement: Judgement) -> bool | None:
    """Whether the longer response is preferred; None without a verdict or at equal lengths."""
    first, second = map(len, comparison.responses)
    if judgement.preferred is None or first == second:
        return None
    return (judgement.preferred == 1) == (first > second)


def counts_of_probe(seen: float, blank: float | None) -> tuple[ProbeOutcome, Counts]:
    """What re-judging with the image blanked adds.

    Args:
        seen: P(response 1 is better) with the image.
        blank: the same without it; None for an abstention.
    """
    if blank is None:
        return "abstain", {"probes": 1, "probes_abstained": 1}
    found: Counts = {"probes": 1, "probes_shift": abs(seen - blank)}
    if (seen >= 0.5) == (blank >= 0.5):
        return "same", found
    found["probes_changed"] = 1
    return "changed", found


@dataclass(frozen=True, slots=True)
class Rate:
    """A share, and of how many; None of nothing."""

    n: int
    rate: float | None


@dataclass(frozen=True, slots=True)
class ImageReliance:
    """What blanking the image changed in the judgements that were probed.

    Attributes:
        changed: verdicts that became another, among those that could be read without the image.
        mean_shift: mean |P(with the image) - P(without it)| of the same.
        abstained: could not be read without the image.
    """

    n: int
    changed: Rate
    mean_shift: float | None
    abstained: int


@dataclass(frozen=True, slots=True)
class RunRates:
    """A run's monitors.

    Attributes:
        abstentions: by reason.
        injection_attempts: judgements with candidate text that tried to act as more than text.
        first_position: passes that prefer what they read first.
        longer_wins: verdicts for the longer response, where lengths differ.
        longer_wins_baseline: the same of everything else that this release has judged.
        image_reliance: None while nothing was probed.
    """

    judgements: int
    abstained: Rate
    abstentions: dict[str, int]
    injection_attempts: Rate
    first_position: Rate
    longer_wins: Rate
    longer_wins_baseline: Rate
    image_reliance: ImageReliance | None


def rates(run: Mapping[str, float], everything: Mapping[str, float]) -> RunRates:
    """A run's rates.

    Args:
        run: its counts.
        everything: those of all that the release has judged, the run among them.
    """
    reasons = ("unreadable", "truncated", "disagreement")
    abstentions = {reason: int(run.get(reason, 0)) for reason in reasons}
    judgements = run.get("judgements", 0)
    elsewhere = {
        name: max(0.0, everything.get(name, 0) - run.get(name, 0))
        for name in ("longer_wins", "lengths_differ")
    }
    return RunRates(
        judgements=int(judgements),
        abstained=_rate(sum(abstentions.values()), judgements),
        abstentions=abstentions,
        injection_attempts=_rate(run.get("injected", 0), judgements),
        first_position=_rate(run.get("read_first", 0), run.get("verdicts", 0)),
        longer_wins=_rate(run.get("longer_wins", 0), run.get("lengths_differ", 0)),
        longer_wins_baseline=_rate(elsewhere["longer_wins"], elsewhere["lengths_differ"]),
        image_reliance=_image_reliance(run) if run.get("probes") else None,
    )


def _image_reliance(run: Mapping[str, float]) -> ImageReliance:
    abstained = run.get("probes_abstained", 0)
    read = run["probes"] - abstained
    return ImageReliance(
        n=int(run["probes"]),
        changed=_rate(run.get("probes_changed", 0), read),
        mean_shift=_rate(run.get("probes_shift", 0), read).rate,
        abstained=int(abstained),
    )


def _rate(amount: float, n: float) -> Rate:
    return Rate(int(n), amount / n if n else None)
