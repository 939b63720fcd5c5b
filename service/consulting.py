"""Evaluators beside a judgement: what they say, what all come to, and who decides in the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from models.comparison import Comparison
from models.rubric import Rubric
from service.calls import Call, Timing
from service.evaluators import Roster
from service.judging import Judgement, PanelVerdict, Voice, panel_verdict
from service.metrics import Metrics
from service.settings import JudgingSettings
from service.store import RubricRecord, Store, comparison_key

_FOR_EVALUATORS = 0.9
"""Share of what is left of a call's time: who has not answered by then is gone on without."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A judgement after everybody was heard.

    Attributes:
        judgement: with the stronger evaluator's say in it, where that was asked for.
        voices: of the evaluators that were asked, in that order.
        panel: what they and the judge come to; None where none of them had an opinion.
        record: of the rubric, these voices included; None where there is no rubric.
    """

    judgement: Judgement
    voices: tuple[Voice, ...] = ()
    panel: PanelVerdict | None = None
    record: RubricRecord | None = None


class Consulting:
    """Asks the evaluators that a call names, and the one that order escalate ends with.

    Args:
        roster: who can be asked.
        store: keeps how often they agreed, by rubric.
        metrics: count what is odd about their verdicts.
        settings: who is asked last by order escalate.
    """

    def __init__(
        self, roster: Roster, store: Store, metrics: Metrics, settings: JudgingSettings
    ) -> None:
        self._roster = roster
        self._store = store
        self._metrics = metrics
        self._least_mass = settings.label_mass
        self._stronger = settings.escalation.evaluator

    def check(self, call: Call) -> None:
        """Whether there is an evaluator of each name.

        Raises:
            NotFound: there is not.
        """
        self._roster.check(call.evaluators)

    async def voices(
        self, call: Call, comparison: Comparison, rubric: Rubric | None, ends: float
    ) -> tuple[Voice, ...]:
        """What the named evaluators make of it; nothing where there is no rubric.

        Args:
            call: who is asked.
            comparison: of the call, or one of many.
            rubric: all that they judge by.
            ends: when they must have answered; see `heard_by`.
        """
        return await self._ask(call.evaluators, call, comparison, rubric, ends)

    async def settle(
        self, call: Call, comparison: Comparison, judgement: Judgement, timing: Timing
    ) -> Settled:
        """Asks the named evaluators, and the stronger one where escalation is still undecided."""
        decides = self._stronger if judgement.stopped == "undecided" else None
        names = call.evaluators
        if decides is not None and decides not in names:
            names = (*names, decides)
        ends = heard_by(call, timing)
        voices = await self._ask(names, call, comparison, judgement.rubric, ends)
        spoke = any(voice.opinion.status == "ok" for voice in voices)
        panel = panel_verdict(voices, judgement.probability) if spoke else None
        deciding = [voice for voice in voices if voice.name == decides]
        record = await self.record(judgement.rubric, comparison, voices, judgement.preferred)
        return Settled(_decided(judgement, deciding), voices, panel, record)

    async def record(
        self,
        rubric: Rubric | None,
        comparison: Comparison,
        voices: tuple[Voice, ...] = (),
        better: int | None = None,
    ) -> RubricRecord | None:
        """A rubric's record, after what these voices add to it.

        Args:
            rubric: None has none.
            comparison: which the voices are about.
            voices: count where they have an opinion, each once about the same comparison.
            better: what they should have come to; where it is not known, nothing is added.
        """
        if rubric is None:
            return None
        if better is None:
            return await self._store.record(rubric.id)
        agreed = {
            voice.name: voice.opinion.preferred == better
            for voice in voices
            if voice.opinion.status == "ok"
        }
        return await self._store.record(rubric.id, comparison_key(comparison), agreed)

    async def _ask(
        self,
        names: tuple[str, ...],
        call: Call,
        comparison: Comparison,
        rubric: Rubric | None,
        ends: float,
    ) -> tuple[Voice, ...]:
        if rubric is None or not names:
            return ()
        left_s = ends - time.monotonic()
        voices = await self._roster.ask(names, comparison, rubric, call.options.priority, left_s)
        masses = [voice.opinion.label_mass for voice in voices]
        self._metrics.saw_label_mass("evaluator", masses, self._least_mass)
        return voices


def heard_by(call: Call, timing: Timing) -> float:
    """When evaluators must have answered, by `time.monotonic`: before the call's time is over."""
    now = time.monotonic()
    return now + _FOR_EVALUATORS * (timing.began + call.timeout_s - now)


def _decided(judgement: Judgement, deciding: list[Voice]) -> Judgement:
    """With the stronger evaluator's opinion beside the judge's; without one it stays as it was."""
    if not any(voice.opinion.status == "ok" for voice in deciding):
        return judgement
    if judgement.reason == "disagreement":  # an abstention that the caller has asked for
        return judgement
    found = panel_verdict(deciding, judgement.probability)
    if found is None:
        return judgement
    return replace(
        judgement,
        preferred=found.preferred,
        probability=found.probability,
        reason=None,
        stopped="evaluator",
    )
