"""Redis killed with -9 under load: judgements go on without it, and jobs after it is back."""

from __future__ import annotations

import asyncio

from loadtests.arrivals import Answered
from loadtests.drills.asking import Known, asked, known
from loadtests.drills.jobs import compared, finished, job_lines, results, sent_job, status
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Site, eventually

_RATE = 20.0


def run(site: Site, scale: Scale) -> Row:
    """Kills the gateway's own Redis in the middle of judgements and of a job."""
    seconds, count = scale.seconds(60, 2), scale.count(5000, 60)
    gateway = site.gateway(SCRIPTED__SECONDS="0.1")
    site.worker(gateway.url, WORKER__IN_FLIGHT="8")
    lines = job_lines(count)
    calm = results(gateway, finished(gateway, sent_job(gateway, lines)))
    cases = asyncio.run(known(gateway.url, cache="use"))
    job = sent_job(gateway, lines)
    answers, recovery_s = asyncio.run(_disturbed(gateway, cases, job, seconds))
    wrong, notes = compared(calm, results(gateway, finished(gateway, job)), count, 0.0)
    row = Row.of(
        f"{_RATE:g}/s for {seconds:g} s and a job of {count} lines, kill -9 in the middle",
        answers,
        recovery_s=recovery_s,
    )
    return row.plus(requests=count, ok=count - wrong, wrong=wrong, notes=notes)


async def _disturbed(
    gateway: Gateway, cases: Known, job: str, seconds: float
) -> tuple[list[Answered], float]:
    """What callers have, and the seconds from the kill until the job is known again."""
    asking = asyncio.create_task(asked(gateway.url, cases.arrivals(_RATE, seconds)))
    await asyncio.sleep(seconds / 2)
    await asyncio.to_thread(lambda: gateway.redis().kill())
    recovery_s = await asyncio.to_thread(
        eventually, "the job is known again", lambda: status(gateway, job) is not None
    )
    return await asking, recovery_s
