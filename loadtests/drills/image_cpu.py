"""What a megapixel costs the gateway in CPU time, by what decoding and shrinking it costs alone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import random
import resource
import struct
import threading
import time

import httpx
from PIL import Image

from loadtests.arrivals import outcome_of
from loadtests.bodies import RUBRIC
from loadtests.drills.asking import JSON, known, opened
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Site
from models.pictures import shrink
from models.release import load_release

_SIDE = 1024
_SHORTEST_SIDE = 28
_AT_ONCE = 4


def run(site: Site, scale: Scale) -> Row:
    """Asks about pictures that were never seen, on an engine that costs nothing."""
    count = scale.count(1000, 20)
    gateway = site.gateway()
    asyncio.run(known(gateway.url, 8))
    jpeg = _jpeg()
    bare_s = _bare_s(jpeg, count)
    before_s = gateway.cpu_s()
    stalls = _Stalls(gateway.url)
    stalls.start()
    outcomes = asyncio.run(_asked(gateway, jpeg, count))
    stalls.stop()
    spent_s = (gateway.cpu_s() - before_s) / count
    failed = [code for kind, code in outcomes if kind == "failed"]
    return Row(
        f"{count} JPEGs of 1 megapixel, {len(jpeg) // 1024} KiB",
        count,
        ok=sum(kind == "ok" for kind, _ in outcomes),
        refused=sum(kind == "refused" for kind, _ in outcomes),
        wrong=len(failed),
        figures={
            "cpu_by_bare": spent_s / bare_s,
            "cpu_s": spent_s,
            "bare_s": bare_s,
            "longest_stall_s": stalls.longest_s,
        },
        notes=tuple(sorted(set(failed))),
    )


def _jpeg() -> bytes:
    """Noise over colours, about as hard to decode as a photograph."""
    dice = random.Random(1)
    coarse = Image.frombytes("RGB", (128, 128), dice.randbytes(3 * 128 * 128))
    file = io.BytesIO()
    coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def _bare_s(jpeg: bytes, count: int) -> float:
    """CPU seconds of decoding a picture and shrinking it to what the release looks at."""
    most_pixels = load_release("tiny").config.images.most_pixels
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(count):
        shrink(Image.open(io.BytesIO(jpeg)).convert("RGB"), most_pixels, _SHORTEST_SIDE)
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent_s / count


async def _asked(gateway: Gateway, jpeg: bytes, count: int) -> list[tuple[str, str]]:
    numbers = iter(range(count))
    outcomes: list[tuple[str, str]] = []
    async with opened(gateway.url) as client:

        async def caller() -> None:
            for number in numbers:
                file = jpeg + struct.pack(
                    ">I", number
                )  # behind its end: another file, no other work
                body = {
                    "question": f"What is in picture {number}?",
                    "responses": ["Colours.", "Nothing."],
                    "images": [{"data": base64.b64encode(file).decode()}],
                    "depth": "verdict",
                    "rubric": {"text": RUBRIC},
                    "cache": "bypass",
                }
                sending = client.post("/score", content=json.dumps(body), headers=JSON)
                outcomes.append(await outcome_of(sending))

        await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))
    return outcomes


class _Stalls(threading.Thread):
    """Asks again and again whether the gateway is alive: no stall was longer than the answer."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopping = threading.Event()
        self.longest_s = 0.0

    def run(self) -> None:
        """Until it is stopped."""
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stopping.wait(0.01):
                began = time.monotonic()
                with contextlib.suppress(httpx.RemoteProtocolError):  # idle for too long
                    client.get("/livez")
                self.longest_s = max(self.longest_s, time.monotonic() - began)

    def stop(self) -> None:
        """Returns when it has stopped."""
        self._stopping.set()
        self.join()
