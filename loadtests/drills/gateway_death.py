"""A gateway killed with -9 under load: whoever asks through the client has their judgement."""

from __future__ import annotations

import asyncio
import time

from proxy_grm_client import AsyncClient

from loadtests.arrivals import Answered, Outcome, paced
from loadtests.drills.asking import Known, judged, known
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Site

_RATE = 20.0
_PATIENCE_S = 300.0


def run(site: Site, scale: Scale) -> Row:
    """Kills the gateway in the middle, starts it again, and looks at what each caller has."""
    gateway = site.gateway(SCRIPTED__SECONDS="0.1")
    seconds = scale.seconds(60, 2)
    cases = asyncio.run(known(gateway.url))
    answers, recovery_s = asyncio.run(_disturbed(gateway, cases, seconds))
    return Row.of(
        f"{_RATE:g}/s for {seconds:g} s through the client, kill -9 in the middle",
        answers,
        recovery_s=recovery_s,
    )


async def _disturbed(
    gateway: Gateway, cases: Known, seconds: float
) -> tuple[list[Answered], float]:
    """What callers have, and the seconds from the kill until it was ready again."""
    async with AsyncClient(gateway.url, timeout_s=_PATIENCE_S) as client:

        async def one(number: int) -> tuple[Outcome, str]:
            return await judged(client, cases, number)

        asking = asyncio.create_task(paced(_RATE, seconds, one))
        await asyncio.sleep(seconds / 2)
        killed = time.monotonic()
        await asyncio.to_thread(gateway.kill)
        gateway.start()
        await asyncio.to_thread(gateway.wait_until_ready)
        recovery_s = time.monotonic() - killed
        return await asking, recovery_s
