"""Fresh toy-world cases, judged by a running service.

Prints one JSON object as its last line: n, accuracy with a 95% interval, accuracy
by family, readable share, order consistency, and tokens spent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import httpx
from proxy_grm_client import AsyncClient, Judgement, ProxyGrmError

from models.toyworld import ToyCase, make_case


async def judge_all(
    cases: Iterable[ToyCase], url: str, concurrency: int
) -> list[tuple[ToyCase, Judgement]]:
    """Judges every case in both orders, `concurrency` at a time, in the order of the cases.

    Raises:
        ProxyGrmError: the service gave no judgement for one of them.
    """
    places = asyncio.Semaphore(concurrency)
    done = Counter[str]()

    async def judge(client: AsyncClient, case: ToyCase) -> tuple[ToyCase, Judgement]:
        async with places:
            judgement = await client.score(
                case.question, case.responses, [case.picture()], order="both", cache="bypass"
            )
        done["cases"] += 1
        if sys.stderr.isatty():
            print(f"\r{done['cases']} judged", end="", file=sys.stderr)
        return case, judgement

    async with AsyncClient(url, timeout_s=600) as client:
        return await asyncio.gather(*(judge(client, case) for case in cases))


def summary(judged: list[tuple[ToyCase, Judgement]]) -> dict[str, Any]:
    """Figures of the *given* order's pass; an abstention counts as not right."""
    right = Counter[str]()
    asked = Counter[str]()
    readable = consistent = 0
    for case, judgement in judged:
        first = judgement.verdicts[0]
        asked[case.family] += 1
        right[case.family] += first.preferred == case.label
        readable += first.preferred is not None
        consistent += judgement.order_consistent is True
    n = len(judged)
    low, high = wilson_interval(right.total(), n)
    return {
        "n": n,
        "accuracy": round(right.total() / n, 4),
        "accuracy_interval_95": [round(low, 4), round(high, 4)],
        "accuracy_by_family": {f: round(right[f] / asked[f], 4) for f in sorted(asked)},
        "readable": round(readable / n, 4),
        "order_consistent": round(consistent / n, 4),
        "completion_tokens": sum(judgement.usage.completion_tokens for _, judgement in judged),
        "fingerprint": judged[0][1].release.fingerprint,
    }


def wilson_interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson, 1927)."""
    share = right / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)


def main(argv: list[str] | None = None) -> int:
    """``python -m models.benchmarks.toyworld``."""
    parser = argparse.ArgumentParser(
        prog="python -m models.benchmarks.toyworld",
        description="Judge fresh drawn scenes through a running service and sum up.",
        epilog="example: python -m models.benchmarks.toyworld --cases 2000 --seed 7",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1, help="training used seeds of its own")
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args(argv)
    rng = random.Random(f"benchmark/{options.seed}")
    cases = [make_case(rng) for _ in range(options.cases)]
    try:
        httpx.get(f"{options.url}/livez", timeout=5)  # before minutes of retries
        judged = asyncio.run(judge_all(cases, options.url, options.concurrency))
    except (ProxyGrmError, httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"{error}\nIs a service running at {options.url}?", file=sys.stderr)
        return 1
    print(json.dumps(summary(judged)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
