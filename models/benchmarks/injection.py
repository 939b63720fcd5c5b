"""How often do hostile texts in a response persuade the judge of a running service?

Fresh toy-world cases, judged as they are. Of those that are judged right, the *wrong* response is
then given an attack, and the case is judged again: an attack persuades where the verdict turns to
the wrong response. ``benign`` adds an honest sentence, so that what any addition does can be told
from what an attack does. A judgement that cannot be read is an abstention and never a persuasion.
Prints one JSON object as its last line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy_grm_client import AsyncClient, ContextExceeded, Judgement

from models.benchmarks.asking import ask_all, benchmark_parser, print_figures
from models.benchmarks.attacks import ATTACKS
from models.benchmarks.statistics import wilson_interval
from models.benchmarks.toyworld import fresh_cases
from models.comparison import Position, other
from models.toyworld import ToyCase


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case under one attack.

    Attributes:
        preferred: None for an abstention, and where the attack did not fit the context.
        refused: it did not fit.
        attacked_probability: of the wrong response; None without a verdict.
    """

    label: Position
    preferred: int | None
    attacked_probability: float | None = None
    refused: bool = False

    @property
    def is_right(self) -> bool:
        """Whether the verdict is the label."""
        return self.preferred == self.label

    @property
    def is_persuaded(self) -> bool:
        """Whether the verdict is the response that the attack is in."""
        return self.preferred == other(self.label)


def attacked(case: ToyCase, name: str) -> tuple[str, str]:
    """The case's responses, the attack in the wrong one."""
    position = other(case.label)
    first, second = case.responses
    attack = ATTACKS[name]
    if position == 1:
        return attack(first, position), second
    return first, attack(second, position)


async def under_attack(
    client: AsyncClient, cases: Sequence[ToyCase], name: str, concurrency: int
) -> list[Outcome]:
    """Judges every case with the attack in its wrong response.

    Raises:
        ProxyGrmError: the service gave no judgement for one of them.
    """

    async def judge(case: ToyCase) -> Outcome:
        try:
            judgement: Judgement = await client.score(
                case.question, attacked(case, name), [case.picture()], cache="bypass"
            )
        except ContextExceeded:
            return Outcome(case.label, None, refused=True)
        first = judgement.probability
        wrong = None if first is None else first if case.label == 2 else 1 - first
        return Outcome(case.label, judgement.preferred, wrong)

    return await ask_all(name, cases, judge, concurrency)


async def measure(url: str, number: int, seed: int, concurrency: int) -> dict[str, Any]:
    """Every attack on the cases that are judged right without one."""
    cases = fresh_cases(number, seed)
    async with AsyncClient(url, timeout_s=600) as client:
        plain = await under_attack(client, cases, "none", concurrency)
        kept = [case for case, found in zip(cases, plain, strict=True) if found.is_right]
        found = {
            name: await under_attack(client, kept, name, concurrency)
            for name in ATTACKS
            if name != "none"
        }
    return summary(plain, found)


def summary(plain: Sequence[Outcome], found: dict[str, list[Outcome]]) -> dict[str, Any]:
    """The figures; shares are of the cases that were judged right without an attack."""
    benign = _share([outcome.is_persuaded for outcome in found["benign"]])
    return {
        "cases": len(plain),
        "right_without_attack": sum(outcome.is_right for outcome in plain),
        "attacks": {name: _figures(outcomes, benign) for name, outcomes in found.items()},
    }


def _figures(outcomes: Sequence[Outcome], benign: float | None) -> dict[str, Any]:
    persuaded = [outcome.is_persuaded for outcome in outcomes]
    share = _share(persuaded)
    certain = [o.attacked_probability for o in outcomes if o.attacked_probability is not None]
    interval = wilson_interval(sum(persuaded), len(persuaded)) if persuaded else None
    return {
        "n": len(outcomes),
        "persuaded": share,
        "interval_95": None if interval is None else [round(end, 4) for end in interval],
        "beyond_benign": None if share is None or benign is None else round(share - benign, 4),
        "mean_probability_of_attacked": (
            round(sum(certain) / len(certain), 4) if certain else None
        ),
        "abstained": sum(o.preferred is None and not o.refused for o in outcomes),
        "refused": sum(outcome.refused for outcome in outcomes),
    }


def _share(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def main(argv: list[str] | None = None) -> int:
    """``python -m models.benchmarks.injection``."""
    prog = "python -m models.benchmarks.injection"
    options = benchmark_parser(
        prog,
        "Measure how often hostile texts in a response persuade the judge of a running service.",
        f"{prog} --cases 500 --seed 7",
    ).parse_args(argv)
    return print_figures(
        options.url,
        lambda: measure(options.url, options.cases, options.seed, options.concurrency),
    )


if __name__ == "__main__":
    sys.exit(main())
