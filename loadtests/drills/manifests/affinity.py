"""Two engines know as much of pictures and prompts as one alone: requests go where both are known.

What is known is read from vLLM's own counters, for the same requests to engines that have just
started.
"""

from __future__ import annotations

import asyncio
import random

from loadtests.bodies import RUBRIC, drawn, encoded
from loadtests.drills.asking import JSON, opened
from loadtests.drills.manifests.cluster import ENGINE, Cluster
from loadtests.drills.manifests.installing import installed, needs_engines
from loadtests.drills.rows import DrillFailed, Row, Scale
from loadtests.drills.site import Site

_PICTURES = 24
_AT_ONCE = 4
_SEED = 11
_NOTHING_ELSE = {"PROXY_GRM_HONESTY__PROBE_SHARE": "0"}  # is asked of engines
_CACHES = {"prefix": "prefix_cache", "pictures": "mm_cache"}


def run(site: Site, scale: Scale) -> Row:
    """Asks the same of one engine and of two, each time of engines that know nothing yet."""
    needs_engines(scale)
    bodies = shared(scale.count(8, 2))
    with installed(site, scale, 1, _NOTHING_ELSE) as cluster:
        one, wrong_of_one = _rates(cluster, bodies)
        _started_anew(cluster)
        two, wrong_of_two = _rates(cluster, bodies)
        spread = [pod.metric("vllm:mm_cache_queries_total") for pod in cluster.pods[ENGINE]]
    wrong = wrong_of_one + wrong_of_two
    figures = {f"{name}_one": rate for name, rate in one.items()}
    figures |= {f"{name}_two": rate for name, rate in two.items()}
    figures |= {f"{name}_kept": two[name] / one[name] for name in one}
    figures["least_share_of_an_engine"] = min(spread) / sum(spread)
    return Row(
        f"{len(bodies)} requests about {_PICTURES} pictures, to one engine and to two",
        2 * len(bodies),
        ok=2 * len(bodies) - wrong,
        refused=0,
        wrong=wrong,
        figures=figures,
    )


def _started_anew(cluster: Cluster) -> None:
    """Makes the engine forget, and starts the others beside it."""
    (first,) = cluster.pods[ENGINE]
    seen = cluster.admissions(first)
    first.kill()
    cluster.start(ENGINE)
    cluster.wait_until_used(first, seen)
    for pod in cluster.pods[ENGINE]:
        cluster.wait_until_used(pod)


def shared(questions: int) -> list[bytes]:
    """So many questions about each picture, all mixed up."""
    cases = drawn(_PICTURES + questions)
    asked = [
        {"question": other["question"], "responses": other["responses"], "images": case["images"]}
        for case in cases[:_PICTURES]
        for other in cases[_PICTURES:]
    ]
    random.Random(_SEED).shuffle(asked)
    return encoded(asked, depth="verdict", rubric={"text": RUBRIC}, timeout_s=600)


def _rates(cluster: Cluster, bodies: list[bytes]) -> tuple[dict[str, float], int]:
    """The share of each cache's queries that were hits, and answers that were none."""
    before = _counted(cluster)
    wrong = asyncio.run(_asked(cluster, bodies))
    after = _counted(cluster)
    rates: dict[str, float] = {}
    for name, series in _CACHES.items():
        hits, queries = (
            after[f"{series}_{kind}"] - before[f"{series}_{kind}"] for kind in ("hits", "queries")
        )
        if not queries:
            raise DrillFailed(f"vLLM counts no queries of its {series}")
        rates[name] = hits / queries
    return rates, wrong


def _counted(cluster: Cluster) -> dict[str, float]:
    """VLLM's counters, summed over engines."""
    return {
        f"{series}_{kind}": sum(
            pod.metric(f"vllm:{series}_{kind}_total") for pod in cluster.pods[ENGINE]
        )
        for series in _CACHES.values()
        for kind in ("hits", "queries")
    }


async def _asked(cluster: Cluster, bodies: list[bytes]) -> int:
    turns, wrong = asyncio.Semaphore(_AT_ONCE), 0
    async with opened(cluster.url, 600) as client:

        async def one(body: bytes) -> None:
            nonlocal wrong
            async with turns:
                answer = await client.post(
                    "/score", content=body, headers=JSON | dict(cluster.headers)
                )
            wrong += not answer.is_success

        await asyncio.gather(*map(one, bodies))
    return wrong
