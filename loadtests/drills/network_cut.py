"""The network between gateway and Redis is cut for a while: no packet passes, nobody is told.

Redis is in a network namespace of its own, on the other end of a virtual cable.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from loadtests.arrivals import Answered
from loadtests.drills.asking import Known, asked, known
from loadtests.drills.jobs import compared, finished, job_lines, results, sent_job, status
from loadtests.drills.rows import NotHere, Row, Scale
from loadtests.drills.site import Gateway, Site, eventually
from loadtests.objectives import figures_of

_RATE = 20.0
_HERE, _THERE = "198.18.0.1", "198.18.0.2"  # addresses that are reserved for tests of networks


def run(site: Site, scale: Scale) -> Row:
    """Cuts the cable in the middle of judgements and of a job, and mends it."""
    seconds, count = scale.seconds(60, 6), scale.count(5000, 60)
    with _cable() as cable:
        _, url = site.redis(cable.inside, _THERE)
        settings = {"REDIS_URL": url, "JOBS__LEASE_S": "5"}
        gateway = site.gateway(**settings, SCRIPTED__SECONDS="0.1")
        site.worker(gateway.url, **settings, WORKER__IN_FLIGHT="8")
        lines = job_lines(count)
        calm = results(gateway, finished(gateway, sent_job(gateway, lines)))
        cases = asyncio.run(known(gateway.url, cache="use"))
        job = sent_job(gateway, lines)
        answers, recovery_s = asyncio.run(_disturbed(gateway, cable, cases, job, seconds))
        wrong, notes = compared(calm, results(gateway, finished(gateway, job)), count, 0.0)
        site.close()
    row = Row.of(
        f"{_RATE:g}/s for {seconds:g} s and a job of {count} lines, cut for a third of it",
        answers,
        recovery_s=recovery_s,
        figures={"ok_p99_s": figures_of(answers, seconds)["ok_p99_s"]},
    )
    return row.plus(requests=count, ok=count - wrong, wrong=wrong, notes=notes)


@dataclass(frozen=True, slots=True)
class _Cable:
    """A pair of virtual network cards, one of them in a namespace.

    Attributes:
        inside: runs a command there.
    """

    inside: tuple[str, ...]
    card: str

    def cut(self) -> None:
        """Lets nothing pass."""
        _ran(*self.inside, "ip", "link", "set", self.card, "down")

    def mend(self) -> None:
        """Lets all pass again."""
        _ran(*self.inside, "ip", "link", "set", self.card, "up")


async def _disturbed(
    gateway: Gateway, cable: _Cable, cases: Known, job: str, seconds: float
) -> tuple[list[Answered], float]:
    """What callers have, and the seconds from the mending until the job is known again."""
    asking = asyncio.create_task(asked(gateway.url, cases.arrivals(_RATE, seconds)))
    await asyncio.sleep(seconds / 3)
    cable.cut()
    await asyncio.sleep(seconds / 3)
    cable.mend()
    began = time.monotonic()
    await asyncio.to_thread(
        eventually, "the job is known again", lambda: status(gateway, job) is not None
    )
    return await asking, time.monotonic() - began


@contextmanager
def _cable() -> Generator[_Cable]:
    """A namespace and a cable to it.

    Raises:
        NotHere: none may be made.
    """
    if os.geteuid() or shutil.which("ip") is None:
        raise NotHere("network namespaces need root and iproute2")
    name = f"drill{os.getpid()}"
    here, there = f"{name}a", f"{name}b"
    inside = ("ip", "netns", "exec", name)
    try:
        _ran("ip", "netns", "add", name)
        _ran("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ran("ip", "addr", "add", f"{_HERE}/30", "dev", here)
        _ran("ip", "link", "set", here, "up")
        _ran(*inside, "ip", "addr", "add", f"{_THERE}/30", "dev", there)
        _ran(*inside, "ip", "link", "set", there, "up")
        yield _Cable(inside, there)
    except subprocess.CalledProcessError as refused:
        raise NotHere(f"no network namespace: {refused.stderr.strip()[:100]}") from refused
    finally:
        for undoing in (("link", "del", here), ("netns", "del", name)):
            subprocess.run(("ip", *undoing), capture_output=True, check=False)


def _ran(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True)
