"""SIGTERM under load: what is in work is finished, what is new is sent elsewhere, and it ends."""

from __future__ import annotations

import asyncio
import signal
import time

from loadtests.arrivals import Answered, Outcome, outcome_of, paced
from loadtests.drills.asking import JSON, Known, known, opened
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Site

_RATE = 20.0
_AFTER_S = 0.5


def run(site: Site, scale: Scale) -> Row:
    """Sends SIGTERM in the middle; callers go on for a moment while it drains."""
    seconds = scale.seconds(20, 2)
    gateway = site.gateway(SCRIPTED__SECONDS="2", DRAIN_S="120")
    cases = asyncio.run(known(gateway.url, 16))
    answers, ending_s, ended = asyncio.run(_drained(gateway, cases, seconds))
    return Row.of(
        f"{_RATE:g}/s for {seconds:g} s and {_AFTER_S:g} s after SIGTERM",
        answers,
        recovery_s=ending_s,
        figures={"exit_status": ended},
    )


async def _drained(
    gateway: Gateway, cases: Known, seconds: float
) -> tuple[list[Answered], float, int]:
    """What callers have, the seconds until it had ended, and its exit status."""
    async with opened(gateway.url) as client:

        async def one(number: int) -> tuple[Outcome, str]:
            return await outcome_of(
                client.post("/score", content=cases.body(number), headers=JSON),
                lambda answer: cases.right(number, answer),
            )

        asking = asyncio.create_task(paced(_RATE, seconds + _AFTER_S, one))
        await asyncio.sleep(seconds)
        told = time.monotonic()
        gateway.tell(signal.SIGTERM)
        answers = await asking
        status = await asyncio.to_thread(gateway.ended)
        return answers, time.monotonic() - told, status
