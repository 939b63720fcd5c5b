"""Do rubrics transfer? An evaluator's accuracy under the right rubric, and under another case's.

Rubrics come from the judge of a running service, or from the oracle of the toy world. The service's
proxy is shown each case with its own rubric and with one from another case of its stratum. What the
first adds over the second is the *transfer*. Prints one JSON object as its last line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy_grm_client import AsyncClient

from models.benchmarks.asking import ask_all, benchmark_parser, print_figures
from models.benchmarks.statistics import mean_interval, wilson_interval
from models.benchmarks.toyworld import fresh_cases
from models.comparison import Position
from models.errors import ModelsError
from models.toyworld import STRATA, ToyCase


@dataclass(frozen=True, slots=True)
class Tried:
    """One case under two rubrics; None where the evaluator abstained or there was no rubric."""

    case: ToyCase
    own: Position | None
    anothers: Position | None


async def write_rubrics(
    cases: Sequence[ToyCase], url: str, *, temperature: float, concurrency: int
) -> list[str | None]:
    """What the judge of a running service writes for each case; None where it was unreadable.

    Args:
        cases: fresh ones.
        url: the service.
        temperature: of the judge; 0 writes the likeliest rubric.
        concurrency: requests at a time.

    Raises:
        ProxyGrmError: the service gave no answer for one of them.
    """
    async with AsyncClient(url, timeout_s=600) as client:

        async def write(case: ToyCase) -> str | None:
            judged = await client.score(
                case.question,
                case.responses,
                [case.picture()],
                temperature=temperature,
                cache="bypass",
            )
            return None if judged.rubric is None else judged.rubric.text

        return await ask_all("rubrics", cases, write, concurrency)


async def try_rubrics(
    cases: Sequence[ToyCase], rubrics: Sequence[str | None], url: str, *, concurrency: int
) -> list[Tried]:
    """Has the proxy judge each case by its own rubric, and by another case's.

    Args:
        cases: fresh ones.
        rubrics: of each case; nobody is asked about a None.
        url: a service whose release has a proxy.
        concurrency: requests at a time.

    Raises:
        ProxyGrmError: the service gave no answer for one of them.
    """
    async with AsyncClient(url, timeout_s=600) as client:

        async def ask(question: tuple[ToyCase, str | None]) -> Position | None:
            case, rubric = question
            if rubric is None:
                return None
            found = await client.verify(
                case.question, case.responses, [case.picture()], rubric=rubric
            )
            return found.preferred

        own = await ask_all("own", list(zip(cases, rubrics, strict=True)), ask, concurrency)
        moved = shuffled(cases, rubrics)
        others = await ask_all("another's", list(zip(cases, moved, strict=True)), ask, concurrency)
    return [Tried(c, a, b) for c, a, b in zip(cases, own, others, strict=True)]


def shuffled(cases: Sequence[ToyCase], rubrics: Sequence[str | None]) -> list[str | None]:
    """Each case gets the rubric of the next case of its stratum; never its own.

    Raises:
        ModelsError: a stratum has one case alone.
    """
    moved: list[str | None] = list(rubrics)
    for stratum in STRATA:
        places = [n for n, case in enumerate(cases) if case.stratum == stratum]
        if len(places) == 1:
            raise ModelsError(f"one case alone is {stratum}-decided: try more cases")
        for place, following in zip(places, places[1:] + places[:1], strict=True):
            moved[place] = rubrics[following]
    return moved


def summary(tried: Sequence[Tried]) -> dict[str, Any]:
    """Accuracies and transfer over all cases and by stratum; an abstention counts as not right."""
    found = {"n": len(tried), **_transfer(tried)}
    for stratum in STRATA:
        members = [t for t in tried if t.case.stratum == stratum]
        if members:
            found[f"{stratum}_decided"] = {"n": len(members), **_transfer(members)}
    found["abstained"] = round(sum(t.own is None for t in tried) / len(tried), 4)
    found["abstained_anothers"] = round(sum(t.anothers is None for t in tried) / len(tried), 4)
    return found


def _transfer(tried: Sequence[Tried]) -> dict[str, Any]:
    own = [t.own == t.case.label for t in tried]
    others = [t.anothers == t.case.label for t in tried]
    mean, low, high = mean_interval([a - b for a, b in zip(own, others, strict=True)])
    return {
        "own_rubric": round(sum(own) / len(own), 4),
        "own_rubric_interval_95": [round(x, 4) for x in wilson_interval(sum(own), len(own))],
        "anothers_rubric": round(sum(others) / len(others), 4),
        "transfer": round(mean, 4),
        "transfer_interval_95": [round(low, 4), round(high, 4)],
    }


def main(argv: list[str] | None = None) -> int:
    """``python -m models.benchmarks.transfer``."""
    prog = "python -m models.benchmarks.transfer"
    parser = benchmark_parser(
        prog,
        "How well rubrics lead somebody else to the right verdict.",
        f"{prog} --cases 2000 --oracle",
    )
    parser.add_argument("--oracle", action="store_true", help="the toy world's own rubrics")
    parser.add_argument("--temperature", type=float, default=0.0, help="of the judge")
    options = parser.parse_args(argv)
    cases = fresh_cases(options.cases, options.seed)

    async def measure() -> dict[str, Any]:
        url, concurrency = options.url, options.concurrency
        rubrics: Sequence[str | None] = [case.rubric.text for case in cases]
        if not options.oracle:
            rubrics = await write_rubrics(
                cases, url, temperature=options.temperature, concurrency=concurrency
            )
        return summary(await try_rubrics(cases, rubrics, url, concurrency=concurrency))

    return print_figures(options.url, measure)


if __name__ == "__main__":
    sys.exit(main())
