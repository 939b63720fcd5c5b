"""``jobs``: files of comparisons that the service's workers judge while nobody waits."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TextIO

from proxy_grm_client.answers import JobStatus
from proxy_grm_client.cli.commands import judging
from proxy_grm_client.cli.lines import FileLines, record
from proxy_grm_client.client import Client


def submit(asked: argparse.Namespace) -> int:
    """Hands a file over and prints the job's id; lines that are no comparisons are left out.

    Raises:
        ValueError: neither a file nor a source is named, or both.
    """
    if (asked.input is None) == (asked.source is None):
        raise ValueError("name a file, or --source and the address of one")
    complaints: list[str] = []
    with Client(asked.url) as client:
        if asked.source is not None:
            job = client.jobs.submit_source(asked.source)
        else:
            lines = FileLines(Path(asked.input), set())
            job = client.jobs.submit(lines.open(), **judging(asked))
            complaints = lines.repeated + [
                f"{asked.input}:{failed.line}: {failed.error.detail}; left out"
                for failed in lines.unread
            ]
        sys.stdout.write(f"{job.id}\n")
        sys.stdout.flush()
        sys.stderr.write("".join(f"{complaint}\n" for complaint in complaints))
        done = _waited(client, job.id) if asked.wait else 0
    return done or int(bool(complaints))


def status(asked: argparse.Namespace) -> int:
    """Says how far a job has come; 1 if it failed."""
    with Client(asked.url) as client:
        found = client.jobs.status(asked.job)
    sys.stdout.write(found.model_dump_json() if asked.json else _said(found))
    sys.stdout.write("\n")
    return int(found.state == "failed")


def wait(asked: argparse.Namespace) -> int:
    """Waits for a job; 1 if it did not get done, or lines of it did not."""
    with Client(asked.url) as client:
        return _waited(client, asked.job)


def results(asked: argparse.Namespace) -> int:
    """Writes each line's result as they come; 1 if a line has none. A file is there when complete.

    Raises:
        FileExistsError: the output is there already.
    """
    with Client(asked.url) as client:
        if asked.output is None:
            return int(bool(_write(client, asked.job, sys.stdout)["error"]))
        target = Path(asked.output)
        if target.exists():
            raise FileExistsError(f"{target} is there already; name another file for the output")
        part = target.with_name(f"{target.name}.part")
        with part.open("w", encoding="utf-8") as out:
            done = _write(client, asked.job, out)
        part.rename(target)
    said = ", ".join(f"{number} {status}" for status, number in sorted(done.items()))
    sys.stderr.write(f"{target}: {done.total()} results ({said or 'none'})\n")
    return int(bool(done["error"]))


def cancel(asked: argparse.Namespace) -> int:
    """Ends a job."""
    with Client(asked.url) as client:
        sys.stdout.write(f"{_said(client.jobs.cancel(asked.job))}\n")
    return 0


def _write(client: Client, job_id: str, out: TextIO) -> Counter[str]:
    done = Counter[str]()
    for result in client.jobs.results(job_id):
        out.write(json.dumps(record(result), ensure_ascii=False) + "\n")
        done[result.status] += 1
    return done


def _waited(client: Client, job_id: str) -> int:
    found = client.jobs.wait(job_id, progress=sys.stderr.isatty())
    sys.stderr.write(f"{_said(found)}\n")
    return int(found.state != "done" or found.counts.error > 0)


def _said(status: JobStatus) -> str:
    counts = status.counts
    by_status = {"ok": counts.ok, "abstain": counts.abstain, "error": counts.error}
    finished = ", ".join(f"{number} {name}" for name, number in by_status.items() if number)
    said = f"{status.id} {status.state}: {sum(by_status.values())} of {counts.total} lines"
    said += f" ({finished})" if finished else ""
    if status.reason:
        return f"{said}; {status.reason}"
    left = not status.ended and status.eta_s is not None
    return f"{said}, {status.eta_s:.0f} s to go" if left else said
