"""The evaluators of a gateway, by the names that callers use."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from models.comparison import Comparison
from models.rubric import Rubric
from service.concurrency import together
from service.engines import Priority
from service.errors import DeadlineExceeded, NotFound, ServiceError
from service.evaluators import kinds
from service.evaluators.contract import Opinion, Surroundings
from service.evaluators.guard import GuardedEvaluator
from service.judging import Voice
from service.metrics import Metrics
from service.settings import EvaluatorSettings

_OWN_ENGINES = {"timeout_s": 3600, "attempts": 1, "concurrency": 65_536, "breaker_failures": 65_536}
"""The gateway's own engines batch, queue and recover by themselves, and may have to start first:
the caller's time is the only limit."""


class Roster:
    """Who can be asked, and asking several at once."""

    def __init__(self, evaluators: Mapping[str, GuardedEvaluator]) -> None:
        self._evaluators = dict(evaluators)

    def __iter__(self) -> Iterator[GuardedEvaluator]:
        return iter(self._evaluators.values())

    def __contains__(self, name: str) -> bool:
        return name in self._evaluators

    def named(self, name: str) -> GuardedEvaluator:
        """The evaluator of this name.

        Raises:
            NotFound: there is none.
        """
        found = self._evaluators.get(name)
        if found is not None:
            return found
        if name == "proxy":
            raise NotFound("this release has no proxy; serve one that has a proxy/ folder")
        known = ", ".join(sorted(self._evaluators)) or "none"
        raise NotFound(f"no evaluator of this name is configured on this server; there is {known}")

    def check(self, names: Iterable[str]) -> None:
        """Whether there is an evaluator of each name.

        Raises:
            NotFound: there is not.
        """
        for name in names:
            self.named(name)

    async def ask(
        self,
        names: tuple[str, ...],
        comparison: Comparison,
        rubric: Rubric,
        priority: Priority,
        timeout_s: float,
    ) -> tuple[Voice, ...]:
        """Asks all at the same time; one that fails has that as its opinion's status.

        Raises:
            NotFound: there is no evaluator of one of the names.
        """
        asked = [self.named(name) for name in names]
        return tuple(
            await together(_voice(one, comparison, rubric, priority, timeout_s) for one in asked)
        )

    async def close(self) -> None:
        """Gives back what the evaluators hold."""
        await together(one.close() for one in self)


def build_roster(
    settings: Mapping[str, EvaluatorSettings], around: Surroundings, metrics: Metrics
) -> Roster:
    """``self``, the release's ``proxy`` where it has one, and those that are configured.

    Raises:
        EvaluatorInvalid: one of them cannot be built.
    """
    every = {"self": EvaluatorSettings.model_validate({"kind": "self", **_OWN_ENGINES})}
    if around.release.proxy is not None and around.proxy is not None:
        every["proxy"] = EvaluatorSettings.model_validate({"kind": "proxy", **_OWN_ENGINES})
    return Roster(
        {
            name: GuardedEvaluator(
                name,
                kinds.build(name, one.kind, one.options, one.api_key, around),
                one,
                metrics,
            )
            for name, one in (every | dict(settings)).items()
        }
    )


async def _voice(
    one: GuardedEvaluator,
    comparison: Comparison,
    rubric: Rubric,
    priority: Priority,
    timeout_s: float,
) -> Voice:
    began = time.monotonic()
    try:
        opinion = await one.evaluate(comparison, rubric, priority, timeout_s)
    except DeadlineExceeded:
        opinion = Opinion.missing("timeout", time.monotonic() - began)
    except ServiceError:
        opinion = Opinion.missing("unavailable", time.monotonic() - began)
    return Voice(one.name, one.settings.weight, opinion)
