"""A job as its owner sees it, and whether each line came out once and as it should."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import httpx

from loadtests.bodies import RUBRIC, drawn
from loadtests.drills.rows import DrillFailed
from loadtests.drills.site import eventually

_LONGEST_S = 3600.0
_MOST_CASES = 256
_SHOWN = 5
_SENT_AT_ONCE = 256


class Front(Protocol):
    """Where jobs are handed in: a gateway, or what stands before several."""

    @property
    def url(self) -> str:
        """Where it listens."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Of every request: the key, where it asks for one."""
        ...


def job_lines(count: int) -> list[bytes]:
    """So many lines, numbered; the comparisons come again in turn."""
    options = {"depth": "verdict", "rubric": {"text": RUBRIC}, "cache": "bypass"}
    cases = itertools.cycle(drawn(min(count, _MOST_CASES)))
    return [
        json.dumps({"id": f"n{number}"} | next(cases) | options).encode()
        for number in range(1, count + 1)
    ]


def sent_job(gateway: Front, lines: Iterable[bytes]) -> str:
    """Sends a job, its lines as they are made; its id.

    Raises:
        DrillFailed: it was not taken.
    """
    answer = offered_job(gateway, lines)
    if answer.status_code != 202:
        raise DrillFailed(f"the job was not taken: {answer.text[:500]}")
    return answer.json()["id"]


def offered_job(gateway: Front, lines: Iterable[bytes]) -> httpx.Response:
    """What the gateway says to a job."""
    return httpx.post(
        f"{gateway.url}/jobs",
        content=_pieces(lines),
        headers={"content-type": "application/x-ndjson", **gateway.headers},
        timeout=600,
    )


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """An upload, some lines at a time."""
    left = iter(lines)
    while some := list(itertools.islice(left, _SENT_AT_ONCE)):
        yield b"".join(line + b"\n" for line in some)


def status(gateway: Front, job: str) -> dict[str, Any] | None:
    """Of a job; None while nobody tells it."""
    try:
        answer = httpx.get(f"{gateway.url}/jobs/{job}", headers=gateway.headers, timeout=60)
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def answered(gateway: Front, job: str) -> float:
    """Lines that have results; endless once all have, less than any while nobody tells."""
    found = status(gateway, job)
    if found is None:
        return -1.0
    counts = found["counts"]
    done = counts["ok"] + counts["abstain"] + counts["error"]
    return math.inf if found["state"] == "done" else done


def has_gone_on(gateway: Front, job: str, since: float) -> bool:
    """Whether more lines have results than `since`, or all have."""
    now = answered(gateway, job)
    return now > since or now == math.inf


def finished(gateway: Front, job: str) -> str:
    """Waits until each line of a job has its result; its id again."""
    eventually("all lines have results", lambda: answered(gateway, job) == math.inf, _LONGEST_S)
    return job


def results(gateway: Front, job: str) -> list[dict[str, Any]]:
    """Of all lines, in order."""
    url = f"{gateway.url}/jobs/{job}/results"
    answer = httpx.get(url, headers=gateway.headers, timeout=600)
    return [json.loads(line) for line in answer.text.splitlines()]


def compared(
    calm: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], count: int, tolerance: float
) -> tuple[int, tuple[str, ...]]:
    """How many lines are missing, there twice or judged otherwise than in peace; and which."""
    times = Counter(one["line"] for one in found)
    before = {one["line"]: one for one in calm}
    kinds = {
        "missing": [line for line in range(1, count + 1) if line not in times],
        "twice": [line for line, seen in times.items() if seen > 1 or not 1 <= line <= count],
        "otherwise": [
            one["line"] for one in found if not _same(before.get(one["line"], {}), one, tolerance)
        ],
    }
    notes = tuple(f"{kind}: lines {lines[:_SHOWN]} …" for kind, lines in kinds.items() if lines)
    return sum(map(len, kinds.values())), notes


def _same(calm: dict[str, Any], found: dict[str, Any], tolerance: float) -> bool:
    """An error is never the same: in peace there was none that could come again."""
    if calm.get("id") != found.get("id") or calm.get("status") != found.get("status"):
        return False
    if found.get("status") != "ok":
        return found.get("status") == "abstain"
    if abs(calm["probability"] - found["probability"]) > tolerance:
        return False
    return calm["preferred"] == found["preferred"] or abs(calm["probability"] - 0.5) <= tolerance
