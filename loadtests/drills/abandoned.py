"""Callers that all leave at once: what they had asked for is not worked on any more."""

from __future__ import annotations

import asyncio
import contextlib

from loadtests.bodies import RUBRIC, drawn, encoded
from loadtests.drills.asking import JSON, opened
from loadtests.drills.rows import DrillFailed, Row, Scale
from loadtests.drills.site import Gateway, Site, eventually

_RUNNING = {"scripted": 512, "vllm": 64}  # a CPU has its hands full with less
_LONGEST_S = 60.0


def run(site: Site, scale: Scale) -> Row:
    """Sends requests that take long, hangs up, and waits until nothing is in work."""
    count = scale.count(1000, 50)
    running = _RUNNING[scale.engine]
    gateway = site.gateway(SCRIPTED__SECONDS="300", ADMISSION__RUNNING=str(running))
    work = "proxy_grm_engine_running"
    asyncio.run(_abandon(gateway, count, min(count, running)))
    seconds = eventually("nothing is in work", lambda: not _in_work(gateway), _LONGEST_S)
    left = int(_in_work(gateway))
    if not gateway.is_ready():
        raise DrillFailed("the gateway is not ready any more")
    return Row(
        f"{count} callers leave, {min(count, running)} of them from the engine",
        count,
        ok=0,
        refused=0,
        wrong=left,
        recovery_s=seconds,
        figures={"recovery_s": seconds, work: left},
    )


def _in_work(gateway: Gateway) -> float:
    """Requests that are in work or wait, wherever."""
    names = ["proxy_grm_engine_running", "proxy_grm_inflight", "proxy_grm_queued"]
    names += ["vllm:num_requests_running", "vllm:num_requests_waiting"]
    return sum(map(gateway.metric, names))


async def _abandon(gateway: Gateway, count: int, running: int) -> None:
    bodies = encoded(drawn(64), rubric={"text": RUBRIC})
    async with opened(gateway.url, None) as client:
        asking = [
            asyncio.create_task(
                client.post("/score", content=bodies[number % len(bodies)], headers=JSON)
            )
            for number in range(count)
        ]

        def taken() -> bool:
            waiting = gateway.metric("proxy_grm_queued")
            return gateway.metric("proxy_grm_engine_running") >= running and (
                waiting >= count - running
            )

        await asyncio.to_thread(eventually, "all have been taken in", taken)
        for task in asking:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*asking, return_exceptions=True)
