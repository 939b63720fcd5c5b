"""``python -m loadtests``: an open loop against a running service.

An API key is taken from ``PROXY_GRM_API_KEY``. The exit status is 1 when an objective is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from pathlib import Path

import httpx
from proxy_grm_client.exchange import connection

from loadtests.arrivals import Answered, Arrivals, sent
from loadtests.bodies import drawn, encoded
from loadtests.objectives import Objectives, figures_of


def main(argv: list[str] | None = None, transport: httpx.AsyncBaseTransport | None = None) -> int:
    """Runs it and prints what was measured."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long they are sent")
    parser.add_argument("--depth", choices=["full", "verdict"], default="verdict")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="of each request")
    parser.add_argument(
        "--objectives", type=Path, default=Path(__file__).with_name("objectives.toml")
    )
    options = parser.parse_args(argv)
    objectives = Objectives.read(options.objectives)
    bodies = encoded(drawn(64), depth=options.depth, timeout_s=options.timeout_s)
    arrivals = Arrivals(
        "/score",
        lambda number: bodies[number % len(bodies)],
        options.rate,
        options.seconds,
        options.timeout_s + 60,
    )
    answers = asyncio.run(_run(options.url, arrivals, transport))
    return 0 if _report(answers, options.seconds, objectives) else 1


async def _run(
    url: str, arrivals: Arrivals, transport: httpx.AsyncBaseTransport | None
) -> list[Answered]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    reached = connection(url, None)
    async with httpx.AsyncClient(**reached, limits=limits, transport=transport) as client:
        return await sent(client, arrivals)


def _report(answers: list[Answered], seconds: float, objectives: Objectives) -> bool:
    """Prints figures, outcomes and objectives; whether all objectives were met."""
    figures = figures_of(answers, seconds)
    for name, value in figures.items():
        print(f"{name:<14} {value:.4g}")
    for (outcome, code), count in sorted(Counter((a.outcome, a.code) for a in answers).items()):
        print(f"{outcome:<14} {code} × {count}")
    missed = [one for one in objectives.objective if not one.met(figures)]
    for one in missed:
        print(f"MISSED {one.figure}: {figures[one.figure]:.4g}, to be {one}")
    print("all objectives met" if not missed else f"{len(missed)} objectives missed")
    return not missed


if __name__ == "__main__":
    sys.exit(main())
