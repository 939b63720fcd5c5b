"""A job of as many lines as one may have: what is held in memory does not grow with them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from loadtests.bodies import RUBRIC
from loadtests.drills.asking import Known, known
from loadtests.drills.jobs import answered, sent_job
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Process, Site, eventually

_LONGEST_S = 4 * 3600.0
_LOOK_EVERY = 20_000  # lines, while they are sent and while results are read
_JUDGING: dict[str, Any] = {"depth": "verdict", "rubric": {"text": RUBRIC}, "images": []}


def run(site: Site, scale: Scale) -> Row:
    """Sends the lines as they are made, has them judged, and reads results as they come.

    Comparisons come again and are then answered from the cache: it is about lines.
    """
    count = scale.count(1_000_000, 2000)
    gateway = site.gateway()
    worker = site.worker(gateway.url)
    expected = asyncio.run(known(gateway.url, cache="use", **_JUDGING))
    held = _Held(gateway, worker)
    job = sent_job(gateway, _lines(expected, count, held.look))
    tenth_mib = _judged(gateway, job, count // 10, held)
    _judged(gateway, job, count, held)
    ok, wrong = _read(gateway, job, count, expected, held)
    last_mib = held.look()
    return Row(
        f"{count} lines, memory of gateway and worker by that after a tenth of them",
        count,
        ok=ok,
        refused=0,
        wrong=wrong,
        figures={
            "growth": last_mib / tenth_mib,
            "tenth_mib": tenth_mib,
            "last_mib": last_mib,
            "most_mib": held.most_mib,
        },
    )


class _Held:
    """What the processes hold in memory."""

    def __init__(self, *processes: Process) -> None:
        self._processes = processes
        self.most_mib = 0.0

    def look(self) -> float:
        """MiB now; the most that was ever seen is kept."""
        now_mib = sum(process.rss_mib() for process in self._processes)
        self.most_mib = max(self.most_mib, now_mib)
        return now_mib


def _lines(expected: Known, count: int, look: Callable[[], float]) -> Iterator[bytes]:
    """The lines, numbered, made while they are sent."""
    cases = expected.cases
    for number in range(count):
        if number % _LOOK_EVERY == 0:
            look()
        yield json.dumps({"id": _id(number + 1)} | cases[number % len(cases)] | _JUDGING).encode()


def _id(line: int) -> str:
    return f"n{line}"


def _judged(gateway: Gateway, job: str, count: int, held: _Held) -> float:
    """Waits until so many lines have results; what is held in memory then, in MiB."""

    def done() -> bool:
        held.look()
        return answered(gateway, job) >= count

    eventually(f"{count} lines have results", done, _LONGEST_S)
    return held.look()


def _read(gateway: Gateway, job: str, count: int, expected: Known, held: _Held) -> tuple[int, int]:
    """How many lines are as in peace, and how many are not, missing or out of order."""
    ok = lines = 0
    url = f"{gateway.url}/jobs/{job}/results"
    with httpx.stream("GET", url, headers=dict(gateway.headers), timeout=600) as answer:
        for lines, text in enumerate(answer.iter_lines(), 1):
            if lines % _LOOK_EVERY == 0:
                held.look()
            ok += _right(json.loads(text), lines, expected)
    return ok, max(count, lines) - ok


def _right(found: dict[str, Any], line: int, expected: Known) -> bool:
    return (
        (found.get("line"), found.get("id"), found.get("status")) == (line, _id(line), "ok")
        and found["preferred"] == expected.answer(line - 1)
        and math.isfinite(found["probability"])
    )
