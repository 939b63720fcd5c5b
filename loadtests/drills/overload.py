"""Three times as many requests as can be done, at a constant rate.

What is admitted is answered in its time, what is not is refused at once, as much is done as without
the crowd, and memory does not grow.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

from loadtests.arrivals import Answered
from loadtests.drills.asking import JSON, Known, asked, known, opened
from loadtests.drills.rows import DrillFailed, Row, Scale
from loadtests.drills.site import Gateway, Process, Site
from loadtests.objectives import figures_of

_TIMES = 3
_RUNNING = 16
_SECONDS = "0.2"  # a generation's: 80 a second leave time to send three times as many from here
_DEADLINE_S = {"scripted": 2.0, "vllm": 10.0}
# Twice the work where it is real, so that sending costs less of a machine's time.
_OPTIONS: dict[str, dict[str, Any]] = {"scripted": {}, "vllm": {"order": "both"}}


def run(site: Site, scale: Scale) -> Row:
    """Measures what the gateway can do, then sends three times that."""
    gateway = site.gateway(SCRIPTED__SECONDS=_SECONDS, ADMISSION__RUNNING=str(_RUNNING))
    deadline_s, seconds = _DEADLINE_S[scale.engine], scale.seconds(60, 3)
    cases = asyncio.run(known(gateway.url, timeout_s=deadline_s, **_OPTIONS[scale.engine]))
    capacity = asyncio.run(_capacity(gateway.url, cases, max(2.0, seconds / 6)))
    rate = _TIMES * capacity
    answers, memory = asyncio.run(_crowd(gateway, cases, rate, seconds))
    figures = figures_of(answers, seconds)
    return Row.of(
        f"{rate:.0f}/s for {seconds:g} s, 3 × a capacity of {capacity:.0f}/s",
        answers,
        figures={
            "goodput_share": figures["goodput"] / capacity,
            "ok_p99_of_deadline": figures["ok_p99_s"] / deadline_s,
            "late_share": figures["late_share"],
            "refused_p99_s": figures["refused_p99_s"],
            "sent_late_p99_s": figures["sent_late_p99_s"],
            "memory_growth": growth(memory),
        },
    )


async def _capacity(url: str, cases: Known, seconds: float) -> float:
    """Judgements a second when as many callers as are served at once ask again and again."""
    done = 0
    async with opened(url) as client:
        began = time.monotonic()

        async def caller(number: int) -> None:
            nonlocal done
            while time.monotonic() - began < seconds:
                answer = await client.post("/score", content=cases.body(number), headers=JSON)
                if not answer.is_success:
                    raise DrillFailed(f"with nobody else there: {answer.text[:500]}")
                done += 1
                number += _RUNNING

        await asyncio.gather(*(caller(number) for number in range(_RUNNING)))
        return done / (time.monotonic() - began)


async def _crowd(
    gateway: Gateway, cases: Known, rate: float, seconds: float
) -> tuple[list[Answered], list[float]]:
    """What came of the requests, and the gateway's memory twice a second."""
    watching = asyncio.create_task(watched(gateway, memory := []))
    try:
        return await asked(gateway.url, cases.arrivals(rate, seconds)), memory
    finally:
        watching.cancel()


async def watched(process: Process, memory: list[float]) -> None:
    """Notes a process's memory in MiB twice a second, until it is cancelled."""
    while True:
        memory.append(process.rss_mib())
        await asyncio.sleep(0.5)


def growth(memory: Sequence[float]) -> float:
    """The largest value of the last quarter by that of the second one."""
    quarter = len(memory) // 4
    if not quarter:
        return math.nan
    return max(memory[-quarter:]) / max(memory[quarter : 2 * quarter])
