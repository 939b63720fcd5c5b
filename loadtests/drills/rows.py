"""What a drill is given and what it reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from loadtests.arrivals import Answered

EngineName = Literal["scripted", "vllm"]


class DrillFailed(Exception):
    """It could not be carried through; the message says why."""


class NotHere(Exception):
    """This machine does not let it be carried through; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a drill is.

    Attributes:
        share: of the full size; 1 is full.
        engine: what judges.
    """

    share: float = 1.0
    engine: EngineName = "scripted"

    def count(self, full: int, least: int) -> int:
        """That many at full size, fewer in a smaller drill, `least` in any."""
        return max(least, round(full * self.share))

    def seconds(self, full: float, least: float) -> float:
        """That long at full size, less in a smaller drill, `least` in any."""
        return max(least, full * self.share)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: how a drill went.

    Attributes:
        load: what was done, in words.
        refused: answers that say in a typed way that the request was not done.
        wrong: answers that are wrong, untyped, twice or missing. Always to be 0.
        recovery_s: from the failure until the service was whole; None where nothing fails.
        figures: what objectives may be about, by name.
        notes: what a reader should know besides.
    """

    load: str
    requests: int
    ok: int
    refused: int
    wrong: int
    recovery_s: float | None = None
    figures: dict[str, float] = field(default_factory=dict[str, float])
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        load: str,
        answers: Sequence[Answered],
        *,
        recovery_s: float | None = None,
        figures: dict[str, float] | None = None,
    ) -> Self:
        """A row about requests that were sent one by one; says what those that failed met with."""
        count = {kind: sum(a.outcome == kind for a in answers) for kind in ("ok", "refused")}
        failed = [answer.code for answer in answers if answer.outcome == "failed"]
        notes = tuple(f"{failed.count(code)} × {code}" for code in sorted(set(failed)))
        return cls(
            load,
            len(answers),
            count["ok"],
            count["refused"],
            len(failed),
            recovery_s,
            figures or {},
            notes,
        )

    def plus(
        self,
        *,
        requests: int,
        ok: int = 0,
        refused: int = 0,
        wrong: int = 0,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """The row with what was counted elsewhere in the same drill."""
        return replace(
            self,
            requests=self.requests + requests,
            ok=self.ok + ok,
            refused=self.refused + refused,
            wrong=self.wrong + wrong,
            notes=(*self.notes, *notes),
        )
