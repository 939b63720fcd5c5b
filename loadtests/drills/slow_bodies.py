"""Callers who send their requests a byte at a time: they are sent away, others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import urlsplit

from loadtests.arrivals import Answered, Outcome
from loadtests.drills.asking import Known, asked, known
from loadtests.drills.rows import Row, Scale
from loadtests.drills.site import Gateway, Site
from loadtests.objectives import figures_of

_RATE = 20.0
_BODY_S = 3.0
_BETWEEN_S = 0.2
_GIVEN_UP_S = 60.0
_ANSWER_BYTES = 65_536
_HEAD = b"POST /score HTTP/1.1\r\nhost: drill\r\ncontent-length: 100000\r\n"


def run(site: Site, scale: Scale) -> Row:
    """Half of the slow ones never finish their headers, half never their bodies."""
    gateway = site.gateway(
        SCRIPTED__SECONDS="0.02", LIMITS__BODY_S=str(_BODY_S), LIMITS__HEAD_S=str(_BODY_S)
    )
    slow, seconds = scale.count(1000, 40), scale.seconds(30, 4)
    cases = asyncio.run(known(gateway.url))
    answers, ends = asyncio.run(_beside(gateway, cases, slow, seconds))
    figures = figures_of(answers, seconds)
    row = Row.of(
        f"{slow} callers who never finish, beside {_RATE:g}/s for {seconds:g} s",
        answers,
        figures={"ok_share": figures["ok_share"], "ok_p99_s": figures["ok_p99_s"]},
    )
    codes = [code for _, code in ends]
    sent_away = sum(outcome == "refused" for outcome, _ in ends)
    return row.plus(
        requests=slow,
        refused=sent_away,
        wrong=slow - sent_away,
        notes=tuple(f"{codes.count(code)} slow ones: {code}" for code in sorted(set(codes))),
    )


async def _beside(
    gateway: Gateway, cases: Known, slow: int, seconds: float
) -> tuple[list[Answered], list[tuple[Outcome, str]]]:
    trickling = [
        asyncio.create_task(_trickled(gateway.url, in_head=bool(number % 2)))
        for number in range(slow)
    ]
    answers = await asked(gateway.url, cases.arrivals(_RATE, seconds))
    return answers, await asyncio.gather(*trickling)


async def _trickled(url: str, *, in_head: bool) -> tuple[Outcome, str]:
    """How the service ends a request that never ends by itself."""
    address = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    except OSError as error:
        return "failed", type(error).__name__
    # Nothing more is sent once the answer begins: the connection could be reset before its end.
    reading = asyncio.create_task(reader.read(_ANSWER_BYTES))
    try:
        async with asyncio.timeout(_GIVEN_UP_S):
            writer.write(_HEAD + (b"x-slow: " if in_head else b"\r\n"))
            while not reading.done():
                writer.write(b"a")
                await asyncio.wait([reading], timeout=_BETWEEN_S)
            said = await reading
            with contextlib.suppress(OSError):
                said += await reader.read()
            return _end(said, in_head)
    except TimeoutError:
        return "failed", "still there"
    except OSError as error:
        return ("refused", "closed") if in_head else ("failed", type(error).__name__)
    finally:
        reading.cancel()
        writer.close()


def _end(said: bytes, in_head: bool) -> tuple[Outcome, str]:
    """Without a whole head there is nobody to answer: the connection is closed.

    A byte that was on its way when the answer began resets the connection, which may take the
    answer's body along, but not its head.
    """
    if in_head and not said:
        return "refused", "closed"
    head, _, body = said.partition(b"\r\n\r\n")
    if not body and head.startswith(b"HTTP/1.1 504 "):
        return "refused", "504 whose body was cut off"
    try:
        return "refused", json.loads(body)["code"]
    except (ValueError, KeyError):
        return "failed", said[:40].decode(errors="replace")
