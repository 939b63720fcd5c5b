"""The gateway's memory after many requests, by that after a tenth of them."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from loadtests.arrivals import outcome_of
from loadtests.bodies import RUBRIC, drawn
from loadtests.drills.asking import JSON, known, opened
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Site

_AT_ONCE = 32
_PICTURES = 10  # one request in so many has one that was never seen
_REMEMBERED_BYTES = str(2**20)  # so that what may grow by intent is full after the first tenth


def run(site: Site, scale: Scale) -> Row:
    """Never asks the same twice: whatever is kept of a request shows."""
    first, last = (2_000, 10_000) if scale.engine == "vllm" else (10_000, 100_000)
    counts = [scale.count(first, 200), scale.count(last, 600)]
    gateway = site.gateway(CACHE__IMAGE_BYTES=_REMEMBERED_BYTES)
    asyncio.run(known(gateway.url, 8))
    outcomes, sizes = asyncio.run(_asked(gateway, counts))
    failed = {code: n for (kind, code), n in outcomes.items() if kind == "failed"}
    return Row(
        f"memory after {counts[1]} requests by that after {counts[0]}",
        counts[1],
        ok=outcomes["ok", "200"],
        refused=sum(n for (kind, _), n in outcomes.items() if kind == "refused"),
        wrong=sum(failed.values()),
        figures={"growth": sizes[1] / sizes[0], "first_mib": sizes[0], "last_mib": sizes[1]},
        notes=tuple(f"{n} × {code}" for code, n in failed.items()),
    )


async def _asked(
    gateway: Gateway, counts: list[int]
) -> tuple[Counter[tuple[str, str]], list[float]]:
    """What came of all, and the gateway's memory after each count."""
    cases, outcomes, sizes = drawn(64), Counter[tuple[str, str]](), list[float]()
    async with opened(gateway.url, 120) as client:

        async def caller(numbers: Iterator[int]) -> None:
            for number in numbers:
                body = _body(cases[number % len(cases)], number)
                outcomes[await outcome_of(client.post("/score", content=body, headers=JSON))] += 1

        for first, last in pairwise((0, *counts)):
            numbers = iter(range(first, last))
            await asyncio.gather(*(caller(numbers) for _ in range(_AT_ONCE)))
            sizes.append(gateway.rss_mib())
    return outcomes, sizes


def _body(case: dict[str, Any], number: int) -> bytes:
    """A request that never was: another question, and now and then another file."""
    picture = base64.b64decode(case["images"][0]["data"])
    if number % _PICTURES == 0:
        picture += struct.pack(">I", number)  # behind its end, where no decoder looks
    asked = {
        **case,
        "question": f"{case['question']} ({number})",
        "images": [{"data": base64.b64encode(picture).decode()}],
        "depth": "verdict",
        "rubric": {"text": RUBRIC},
    }
    return json.dumps(asked).encode()
