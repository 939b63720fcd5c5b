"""Opinions of those who are given a rubric, and what a panel of them comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal, get_args

from models.comparison import Position
from service.judging.judgement import AbstentionReason, Usage

OpinionStatus = Literal["ok", "abstain", "timeout", "unavailable"]
"""``timeout`` and ``unavailable`` are of evaluators that the others go on without."""


_UNKNOWN = Usage()
_WHOLE = 1 + 1e-3  # a sum of probabilities, rounded by whoever sent them


@dataclass(frozen=True, slots=True)
class Opinion:
    """What an evaluator makes of a comparison, guided by a rubric.

    Made by `of`, `prefers`, `abstains` and `missing`.

    Attributes:
        reason: why it abstains.
        preferred: None unless the status is ``ok``.
        probability: P(response 1 is better by the rubric), calibrated where the evaluator is;
            None unless the status is ``ok``, and where the evaluator only says which one.
        usage: what the evaluator's model computed, as far as it says so.
        latency_s: seconds until it came, waiting and retries included.
        label_mass: share of the verdict token's probability that lies on the two labels.
    """

    status: OpinionStatus
    reason: AbstentionReason | None = None
    preferred: Position | None = None
    probability: float | None = None
    usage: Usage = _UNKNOWN
    latency_s: float = 0.0
    label_mass: float | None = None
    injection_attempts: int = 0

    @classmethod
    def of(cls, probability: float, usage: Usage = _UNKNOWN) -> Opinion:
        """One that says how sure it is, by P(response 1 is better)."""
        return cls("ok", None, 1 if probability >= 0.5 else 2, probability, usage)

    @classmethod
    def prefers(cls, position: Position, usage: Usage = _UNKNOWN) -> Opinion:
        """One that only says which response is better."""
        return cls("ok", None, position, None, usage)

    @classmethod
    def abstains(cls, reason: AbstentionReason, usage: Usage = _UNKNOWN) -> Opinion:
        """That of an evaluator which answered and could not be read."""
        return cls("abstain", reason, usage=usage)

    @classmethod
    def missing(cls, status: Literal["timeout", "unavailable"], latency_s: float) -> Opinion:
        """That of an evaluator from whom none came."""
        return cls(status, latency_s=latency_s)

    @property
    def vote(self) -> float | None:
        """P(response 1 is better); 1 or 0 where the evaluator only says which one."""
        if self.probability is None and self.preferred is not None:
            return 1.0 if self.preferred == 1 else 0.0
        return self.probability

    def check(self) -> None:
        """Whether it makes sense.

        Raises:
            ValueError, TypeError: it contradicts itself, or holds something that is not what it
                is called.
        """
        if self.status not in ("ok", "abstain"):
            raise ValueError(f"an opinion that is {self.status!r}, neither ok nor abstain")
        if (self.preferred is not None) != (self.status == "ok"):
            raise ValueError(f"an opinion that is {self.status!r} and prefers {self.preferred!r}")
        if self.preferred not in (1, 2, None):
            raise ValueError(f"an opinion that prefers {self.preferred!r}, neither 1 nor 2")
        if self.reason not in ((None,) if self.status == "ok" else get_args(AbstentionReason)):
            raise ValueError(f"an opinion that is {self.status!r} because of {self.reason!r}")
        self._check_counts()
        if self.probability is None:
            return
        if not 0 <= self.probability <= 1:
            raise ValueError(f"an opinion with probability {self.probability!r}")
        if self.preferred != (1 if self.probability >= 0.5 else 2):
            raise ValueError(f"an opinion that prefers {self.preferred} at {self.probability}")

    def _check_counts(self) -> None:
        counts = (*astuple(self.usage), self.injection_attempts)
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"an opinion that counts {counts!r}")
        if self.label_mass is not None and not 0 <= self.label_mass <= _WHOLE:
            raise ValueError(f"an opinion with label mass {self.label_mass!r}")


@dataclass(frozen=True, slots=True)
class Voice:
    """An evaluator's opinion on a panel.

    Attributes:
        name: the evaluator's.
        weight: how much the opinion counts; the judge's own verdict counts 1.
    """

    name: str
    weight: float
    opinion: Opinion


@dataclass(frozen=True, slots=True)
class PanelVerdict:
    """What all who had an opinion come to.

    Attributes:
        probability: weighted mean of P(response 1 is better).
        agreement: share of the weight that stands with `preferred`; below 0.5 where confident
            voices outweigh a majority of hesitant ones.
    """

    preferred: Position
    probability: float
    agreement: float


def agreement(
    voices: Sequence[Voice], preferred: Position | Literal["most"] | None = "most"
) -> float | None:
    """Share of the opinions that are this one; None where there is none of either.

    Args:
        voices: whoever abstains or is missing counts for nothing.
        preferred: the judge's verdict; ``most`` takes the opinion that more of them have.
    """
    held = [voice.opinion.preferred for voice in voices if voice.opinion.status == "ok"]
    if preferred is None or not held:
        return None
    if preferred == "most":
        return max(held.count(1), held.count(2)) / len(held)
    return held.count(preferred) / len(held)


def panel_verdict(voices: Sequence[Voice], judge: float | None = None) -> PanelVerdict | None:
    """The weighted verdict; None while nobody who counts has an opinion.

    Args:
        voices: the evaluators'; whoever abstains or is missing counts for nothing.
        judge: the judge's own P(response 1 is better), with weight 1.
    """
    held = [
        (voice.weight, voice.opinion.vote) for voice in voices if voice.opinion.vote is not None
    ]
    if judge is not None:
        held.append((1.0, judge))
    total = math.fsum(weight for weight, _ in held)
    if total <= 0:
        return None
    probability = math.fsum(weight * p for weight, p in held) / total
    preferred: Position = 1 if probability >= 0.5 else 2
    with_it = math.fsum(weight for weight, p in held if (p >= 0.5) == (preferred == 1))
    return PanelVerdict(preferred, probability, with_it / total)
