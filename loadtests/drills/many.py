"""Two gateways and three workers on one Redis: they share the work, and do none of it twice."""

from __future__ import annotations

import asyncio
import json
import random
import time

from loadtests.bodies import RUBRIC, drawn, encoded
from loadtests.drills.asking import JSON, known, opened
from loadtests.drills.jobs import (
    answered,
    compared,
    finished,
    has_gone_on,
    job_lines,
    results,
    sent_job,
)
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Site, eventually


def run(site: Site, scale: Scale) -> Row:
    """Asks both for the same at the same time; then one gateway and one worker die in a job."""
    asked, count = scale.count(1000, 20), scale.count(5000, 90)
    _, url = site.redis()
    settings = {"REDIS_URL": url, "JOBS__LEASE_S": "5", "WORKER__IN_FLIGHT": "8"}
    both = [site.gateway(**settings, SCRIPTED__SECONDS="0.2") for _ in range(2)]
    workers = [site.worker(both[number % 2].url, **settings) for number in range(3)]
    for gateway in both:
        asyncio.run(known(gateway.url, 8))
    wrong, judged = asyncio.run(_same_at_both(both, asked))
    lines = job_lines(count)
    calm = results(both[0], finished(both[0], sent_job(both[0], lines)))
    job = sent_job(both[1], lines)
    eventually("lines have results", lambda: has_gone_on(both[0], job, count / 10))
    killed = time.monotonic()
    both[1].kill()
    workers[2].kill()
    done = answered(both[0], job)
    eventually("the job goes on without them", lambda: has_gone_on(both[0], job, done))
    recovery_s = time.monotonic() - killed
    both[1].start()
    workers[2].start()
    lines_wrong, notes = compared(calm, results(both[0], finished(both[0], job)), count, 0.0)
    return Row(
        f"{asked} comparisons asked of both gateways at once; {count} lines, one of each dies",
        2 * asked + count,
        ok=2 * asked - wrong + count - lines_wrong,
        refused=0,
        wrong=wrong + lines_wrong,
        recovery_s=recovery_s,
        figures={"judgements_a_comparison": judged / asked},
        notes=notes,
    )


async def _same_at_both(both: list[Gateway], count: int) -> tuple[int, int]:
    """Pairs of answers that differ or are none, and how often something was judged."""
    bodies = encoded(
        [{**case, "question": f"{case['question']} ({n})"} for n, case in enumerate(drawn(count))],
        depth="verdict",
        rubric={"text": RUBRIC},
        cache="use",
    )
    random.Random(1).shuffle(bodies)
    turns, wrong, judged = asyncio.Semaphore(16), 0, 0
    async with opened(both[0].url) as first, opened(both[1].url) as second:

        async def one(body: bytes) -> None:
            nonlocal wrong, judged
            async with turns:
                answers = await asyncio.gather(
                    *(
                        client.post("/score", content=body, headers=JSON)
                        for client in (first, second)
                    )
                )
            found = [json.loads(answer.content) for answer in answers if answer.is_success]
            wrong += 2 - len(found)
            wrong += len({one["probability"] for one in found}) > 1
            judged += sum(not one["cached"] for one in found)

        await asyncio.gather(*map(one, bodies))
    return wrong, judged
