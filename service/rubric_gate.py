"""Rubrics that transfer: another one is drafted while evaluators do not reach the verdict by it.

The judge's verdict says little of its rubric; that somebody who is shown the rubric alone comes to
the same verdict says that it states what decides (arXiv 2603.16600, there as a reward of training).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal

from models.comparison import Position
from service.calls import Call
from service.consulting import Settled
from service.errors import InvalidRequest, ServiceError
from service.judging import Drafting, Usage, Voice, agreement
from service.metrics import Metrics
from service.settings import GateSettings

Stop = Literal["agreed", "attempts", "unchecked", "deadline", "failed"]
"""Why no further rubric was drafted. ``agreed``: evaluators reached the verdict. ``attempts``: no
more were allowed. ``unchecked``: there was no verdict to reach, or no evaluator had an opinion.
``deadline``, ``failed``: there was no time for another, or it ended in an error."""

_SHARE_OF_TIME = 0.9
"""Of what is left: the judgement that there is already must arrive."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A judgement by a rubric of the judge's own, and what the evaluators made of it.

    Attributes:
        preferred: the judge's own verdict, which they are held against.
        agreement: share of the opinions that are this verdict; None without either: whoever
            abstains, is late or fails neither agrees nor disagrees.
        cached: whether the judgement was kept from before.
    """

    settled: Settled
    preferred: Position | None
    agreement: float | None
    cached: bool

    @classmethod
    def of(
        cls, settled: Settled, preferred: Position | None, asked: tuple[str, ...], *, cached: bool
    ) -> Attempt:
        """An attempt; only the evaluators that were `asked` for have a say about it."""
        voices = [voice for voice in settled.voices if voice.name in asked]
        return cls(settled, preferred, agreement(voices, preferred), cached)


@dataclass(frozen=True, slots=True)
class Gated:
    """The attempt with the highest agreement, the first of equals; and how that came about.

    Attributes:
        taken: its usage, and each evaluator's, is that of all attempts.
        attempts: all that were finished.
    """

    taken: Attempt
    attempts: tuple[Attempt, ...]
    stopped: Stop


class RubricGate:
    """Lets judgements through by whose rubric evaluators reach the verdict.

    Args:
        settings: how many rubrics, and what is enough.
        metrics: count how it ends.
    """

    def __init__(self, settings: GateSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics

    def attempts(self, call: Call) -> int:
        """How many rubrics may be tried; 1 where nobody is named, or a rubric is given.

        Raises:
            InvalidRequest: the call asks for more all the same.
        """
        can_try = bool(call.evaluators) and call.rubric is None
        if call.rubric_attempts is None:
            return self._settings.attempts if can_try else 1
        if call.rubric_attempts > 1 and not can_try:
            raise InvalidRequest(
                "rubric_attempts: more than 1 needs evaluators to ask, and no given rubric"
            )
        return call.rubric_attempts

    async def through(
        self, call: Call, make: Callable[[Call], Awaitable[Attempt]], ends: float
    ) -> Gated:
        """Makes attempts until the evaluators reach the verdict.

        Args:
            call: attempt 0 is made of it as it is, each other with a drafting of its own.
            make: makes an attempt; what the first one raises is raised.
            ends: when the caller's time is over, by `time.monotonic`.
        """
        most, least = self.attempts(call), self._settings.agreement
        found: list[Attempt] = []
        stopped: Stop | None = None
        longest_s = 0.0
        while stopped is None:
            began = time.monotonic()
            left_s = _SHARE_OF_TIME * (ends - began)
            if found and left_s < longest_s:
                stopped = "deadline"
                break
            try:
                async with asyncio.timeout(left_s if found else None):
                    found.append(await make(self._drafting(call, len(found))))
            except (ServiceError, TimeoutError) as error:
                if not found:
                    raise
                stopped = "deadline" if isinstance(error, TimeoutError) else "failed"
                break
            longest_s = max(longest_s, time.monotonic() - began)
            stopped = _stopped(found, most, least)
        if most > 1:
            self._metrics.rubric_gate.labels(stopped).inc()
            self._metrics.rubric_attempts.observe(len(found))
        return Gated(_taken(found), tuple(found), stopped)

    def _drafting(self, call: Call, attempt: int) -> Call:
        if attempt == 0:
            return call
        temperature = call.options.temperature or self._settings.temperature
        drafting = Drafting(temperature, drafting_seed(call.options.seed, attempt))
        return replace(call, options=replace(call.options, drafting=drafting))


def drafting_seed(seed: int, attempt: int) -> int:
    """The seed that a further attempt drafts its rubric with: always the same of a request's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{attempt}".encode()).digest()[:4])


def _stopped(found: list[Attempt], most: int, least: float) -> Stop | None:
    last = found[-1]
    if last.agreement is not None and last.agreement >= least:
        return "agreed"
    # A further draft that cannot be read is an attempt as any other.
    if last.agreement is None and (last.preferred is not None or len(found) == 1):
        return "unchecked"
    return "attempts" if len(found) >= most else None


def _taken(found: list[Attempt]) -> Attempt:
    best = max(found, key=lambda one: -1.0 if one.agreement is None else one.agreement)
    if len(found) == 1:
        return best
    used = reduce(add, (one.settled.judgement.usage for one in found), Usage())
    voices = tuple(_with_all_usage(voice, found) for voice in best.settled.voices)
    judgement = replace(best.settled.judgement, usage=used)
    return replace(best, settled=replace(best.settled, judgement=judgement, voices=voices))


def _with_all_usage(voice: Voice, found: list[Attempt]) -> Voice:
    used = [
        one.opinion.usage
        for attempt in found
        for one in attempt.settled.voices
        if one.name == voice.name
    ]
    return replace(voice, opinion=replace(voice.opinion, usage=reduce(add, used, Usage())))
