"""The clock is set forward and back: leases and lifetimes go by it, work and callers must not.

libfaketime makes all processes see a clock that a file sets. Durations are measured by another
clock, which nobody can set.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from loadtests.arrivals import Answered
from loadtests.drills.asking import Known, asked, known
from loadtests.drills.jobs import (
    answered,
    compared,
    finished,
    has_gone_on,
    job_lines,
    results,
    sent_job,
)
from loadtests.drills.rows import NotHere, Row, Scale
from loadtests.drills.site import Gateway, Process, Site, eventually

_RATE = 20.0
_HOUR_S = 3600
_LIBRARY = "faketime/libfaketimeMT.so.1"


def run(site: Site, scale: Scale) -> Row:
    """Sets the clock an hour forward, then an hour back, in the middle of judgements and a job."""
    seconds, count = scale.seconds(60, 4), scale.count(5000, 60)
    clock = _Clock(site.folder / "clock")
    site.surroundings |= clock.surroundings()
    _, url = site.redis()
    settings = {"REDIS_URL": url, "JOBS__LEASE_S": "5"}
    gateway = site.gateway(**settings, SCRIPTED__SECONDS="0.1")
    workers = [site.worker(gateway.url, **settings, WORKER__IN_FLIGHT="4") for _ in range(2)]
    lines = job_lines(count)
    calm = results(gateway, finished(gateway, sent_job(gateway, lines)))
    cases = asyncio.run(known(gateway.url, cache="use"))
    job = sent_job(gateway, lines)
    answers, recovery_s = asyncio.run(_disturbed(gateway, workers, clock, cases, job, seconds))
    wrong, notes = compared(calm, results(gateway, finished(gateway, job)), count, 0.0)
    row = Row.of(
        f"{_RATE:g}/s for {seconds:g} s and a job of {count} lines, an hour forward and two back",
        answers,
        recovery_s=recovery_s,
    )
    return row.plus(requests=count, ok=count - wrong, wrong=wrong, notes=notes)


class _Clock:
    """What the processes take for the time.

    Raises:
        NotHere: libfaketime is not installed.
    """

    def __init__(self, file: Path) -> None:
        found = [*Path("/usr/lib").glob(f"*/{_LIBRARY}"), *Path("/usr/lib").glob(_LIBRARY)]
        if not found:
            raise NotHere("it needs libfaketime")
        self._library = found[0]
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """So far ahead of the real time, or behind it."""
        self._file.write_text(f"{ahead_s:+d}")

    def surroundings(self) -> dict[str, str]:
        """Of processes that go by it."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


async def _disturbed(
    gateway: Gateway,
    workers: list[Process],
    clock: _Clock,
    cases: Known,
    job: str,
    seconds: float,
) -> tuple[list[Answered], float]:
    """What callers have, and the seconds from the last change until the job goes on."""
    asking = asyncio.create_task(asked(gateway.url, cases.arrivals(_RATE, seconds)))
    await asyncio.sleep(seconds / 3)
    clock.set(_HOUR_S)
    await asyncio.sleep(seconds / 3)
    workers[0].kill()  # what it had was leased by a clock that is far ahead
    workers[0].start()
    clock.set(-_HOUR_S)
    done = answered(gateway, job)
    recovery_s = await asyncio.to_thread(
        eventually, "the job goes on", lambda: has_gone_on(gateway, job, done)
    )
    return await asking, recovery_s
