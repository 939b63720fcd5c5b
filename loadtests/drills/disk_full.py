"""No room left for Redis' file: judgements go on, jobs are refused until there is room again."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from loadtests.drills.asking import asked, known
from loadtests.drills.jobs import compared, finished, job_lines, offered_job, results, sent_job
from loadtests.drills.rows import NotHere, Row, Scale
from loadtests.drills.site import Gateway, Site, eventually

_RATE = 20.0
_MIB = 64  # more than the jobs of a full-size drill write before it is filled


def run(site: Site, scale: Scale) -> Row:
    """Fills the disk under a gateway's Redis and empties it again."""
    seconds, count = scale.seconds(30, 2), scale.count(2000, 60)
    with _small_disk(site.folder / "small") as disk:
        gateway = site.gateway(STATE_DIR=str(disk / "state"), SCRIPTED__SECONDS="0.02")
        site.worker(gateway.url, STATE_DIR=str(disk / "state"))
        lines = job_lines(count)
        calm = results(gateway, finished(gateway, sent_job(gateway, lines)))
        cases = asyncio.run(known(gateway.url, cache="use"))
        filler = disk / "filler"
        _fill(filler)
        codes: list[str] = []
        eventually("jobs are refused", lambda: not _taken(gateway, codes))
        answers = asyncio.run(asked(gateway.url, cases.arrivals(_RATE, seconds)))
        filler.unlink()
        recovery_s = eventually("jobs are taken again", lambda: _taken(gateway, codes))
        found = results(gateway, finished(gateway, sent_job(gateway, lines)))
        site.close()
    wrong, notes = compared(calm, found, count, 0.0)
    untyped = [code for code in codes if code not in ("", "store_unavailable")]
    row = Row.of(
        f"{_RATE:g}/s for {seconds:g} s on a full disk of {_MIB} MiB, then a job of {count} lines",
        answers,
        recovery_s=recovery_s,
    )
    refused = codes.count("store_unavailable")
    return row.plus(
        requests=count + refused + len(untyped),
        ok=count - wrong,
        refused=refused,
        wrong=wrong + len(untyped),
        notes=(*notes, *untyped),
    )


def _taken(gateway: Gateway, codes: list[str]) -> bool:
    """Whether a job is taken; notes the code of the answer, nothing for a job that is."""
    answer = offered_job(gateway, job_lines(1))
    codes.append("" if answer.is_success else answer.json().get("code", str(answer.status_code)))
    return answer.is_success


def _fill(file: Path) -> None:
    """Writes until there is no room."""
    with file.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


@contextmanager
def _small_disk(folder: Path) -> Generator[Path]:
    """A disk of a few megabytes, in memory.

    Raises:
        NotHere: none may be mounted.
    """
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={_MIB}m", "none", str(folder)]
    if os.geteuid() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        raise NotHere("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
