"""Sixteen toy responses in order: the pairs that tell most, against all pairs there are.

Prints a table, and one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy_grm_client import AsyncClient, Ranking
from proxy_grm_client.calls import Order, RankOptions

from models.benchmarks.asking import ask_all, benchmark_parser, print_figures, print_table
from models.toyworld.rankings import RankingCase, make_ranking_case

ADAPTIVE: RankOptions = {}
ALL_PAIRS: RankOptions = {"budget": 120, "confidence": 1.0}
ORDERS: tuple[Order, ...] = ("given", "both")


@dataclass(frozen=True, slots=True)
class RankedCase:
    """A case and the service's ranking of it."""

    case: RankingCase
    ranking: Ranking

    @property
    def tau(self) -> float | None:
        """Agreement with the known order; None where there is no ranking."""
        return self.case.agreement(self.ranking.ranking) if self.ranking.ranking else None


async def rank_all(
    client: AsyncClient,
    cases: Sequence[RankingCase],
    title: str,
    options: RankOptions,
    concurrency: int = 1,
) -> list[RankedCase]:
    """Has every case ranked.

    Raises:
        ProxyGrmError: the service gave no answer for one of them.
    """

    async def one(case: RankingCase) -> RankedCase:
        asked: RankOptions = {**options, "cache": "bypass"}
        found = await client.rank(case.question, case.responses, [case.picture()], **asked)
        return RankedCase(case, found)

    return await ask_all(title, cases, one, concurrency)


def figures(ranked: Sequence[RankedCase]) -> dict[str, Any]:
    """Means over the cases that were ranked; the cost is that of all of them."""
    known = [one.tau for one in ranked if one.tau is not None]
    asked = [c for one in ranked for c in one.ranking.comparisons]
    return {
        "n": len(ranked),
        "ranked": len(known),
        "tau": _mean(known),
        "comparisons": _mean([one.ranking.spent.comparisons for one in ranked]),
        "tokens": _mean([one.ranking.spent.tokens for one in ranked]),
        "engine_s": _mean([one.ranking.timing.engine_s for one in ranked]),
        "readable": _mean([one.probability is not None for one in asked]),
        "cycles": _mean([len(one.ranking.cycles) for one in ranked]),
    }


def summary(adaptive: Sequence[RankedCase], all_pairs: Sequence[RankedCase]) -> dict[str, Any]:
    """Both, what the one spends of the other, and how near it comes.

    Attributes of the result ending in ``_share`` are adaptive over all pairs. ``tau_between`` is
    how far the two rankings agree with each other, whatever the known order.
    """
    one, other = figures(adaptive), figures(all_pairs)
    between = [
        _tau(a.ranking.ranking, b.ranking.ranking)
        for a, b in zip(adaptive, all_pairs, strict=True)
        if a.ranking.ranking and b.ranking.ranking
    ]
    found: dict[str, Any] = {"adaptive": one, "all_pairs": other}
    if one["tau"] is not None and other["tau"] is not None:
        found["tau_lost"] = round(other["tau"] - one["tau"], 4)
    for cost in ("comparisons", "tokens", "engine_s"):
        found[f"{cost}_share"] = round(one[cost] / other[cost], 4) if other[cost] else None
    found["tau_between"] = _mean(between)
    found["release"] = adaptive[0].ranking.release.name
    found["fingerprint"] = adaptive[0].ranking.release.fingerprint
    return found


def _tau(one: Sequence[int], two: Sequence[int]) -> float:
    place = {index: n for n, index in enumerate(two)}
    signs = [1 if place[a] < place[b] else -1 for a, b in itertools.combinations(one, 2)]
    return sum(signs) / len(signs)


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


async def measure(client: AsyncClient, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways on the same cases, in each order asked for; prints the table on the way."""
    rng = random.Random(f"ranking/{options.seed}")
    cases = [make_ranking_case(rng) for _ in range(options.cases)]
    found: dict[str, Any] = {}
    for order in options.orders:
        ranked: list[list[RankedCase]] = []
        for title, how in (("adaptive", ADAPTIVE), ("all pairs", ALL_PAIRS)):
            asked: RankOptions = {**how, "order": order}
            ranked.append(
                await rank_all(client, cases, f"{order}, {title}", asked, options.concurrency)
            )
        found[order] = summary(*ranked)
    print_table([title for title, _ in _COLUMNS], _rows(found))
    return found


_COLUMNS = (
    ("order, pairs", ""),
    ("Kendall tau", "tau"),
    ("comparisons", "comparisons"),
    ("tokens", "tokens"),
    ("engine s", "engine_s"),
    ("readable", "readable"),
    ("cycles", "cycles"),
)


def _rows(found: dict[str, Any]) -> list[list[Any]]:
    """Both ways in each order, and what the one spends of the other."""
    rows: list[list[Any]] = []
    for order, figures_of in found.items():
        for way in ("adaptive", "all_pairs"):
            title = f"{order}, {way.replace('_', ' ')}"
            rows.append([title, *(figures_of[way][key] for _, key in _COLUMNS[1:])])
        shares = [figures_of.get(f"{key}_share") for _, key in _COLUMNS[2:5]]
        rows.append([f"{order}, lost; share", figures_of.get("tau_lost"), *shares, None, None])
    return rows


def main(argv: list[str] | None = None) -> int:
    """``python -m models.benchmarks.ranking``."""
    prog = "python -m models.benchmarks.ranking"
    parser = benchmark_parser(
        prog,
        "Sixteen toy responses in order, by few comparisons and by all of them.",
        f"{prog} --cases 50 --seed 7; one ranking at a time leaves engine times undisturbed",
    )
    parser.set_defaults(cases=20, concurrency=1)
    parser.add_argument(
        "--orders", nargs="+", choices=ORDERS, default=[*ORDERS], help="of each comparison"
    )
    options = parser.parse_args(argv)

    async def measured() -> dict[str, Any]:
        async with AsyncClient(options.url, timeout_s=3600) as client:
            return await measure(client, options)

    return print_figures(options.url, measured)


if __name__ == "__main__":
    sys.exit(main())
