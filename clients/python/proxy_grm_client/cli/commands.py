"""One question, one answer: ``score``, ``rubric``, ``rank`` and ``run``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import httpx
from pydantic import BaseModel

from proxy_grm_client.client import Client
from proxy_grm_client.exchange import connection


def score(asked: argparse.Namespace) -> int:
    """Judges two responses."""
    responses = (asked.a, asked.b)
    with opened(asked) as client:
        judgement = client.score(asked.q, responses, asked.images, **judging(asked))
    if asked.json:
        return _printed(judgement, judgement.status)
    from proxy_grm_client.cli import shown

    shown.show_judgement(asked.q, responses, asked.images, judgement)
    return int(judgement.status != "ok")


def rubric(asked: argparse.Namespace) -> int:
    """Writes a rubric."""
    with opened(asked) as client:
        written = client.rubric(asked.q, (asked.a, asked.b), asked.images)
    if asked.json:
        return _printed(written, written.status)
    from proxy_grm_client.cli import shown

    shown.show_rubric(written)
    return int(written.status != "ok")


def rank(asked: argparse.Namespace) -> int:
    """Puts responses in order."""
    with opened(asked) as client:
        ranking = client.rank(asked.q, asked.r, asked.images, **judging(asked))
    if asked.json:
        return _printed(ranking, ranking.status)
    from proxy_grm_client.cli import shown

    shown.show_ranking(asked.q, asked.r, ranking)
    return int(ranking.status != "ok")


def run(asked: argparse.Namespace) -> int:
    """Tells whether the judge of a run is being fooled."""
    with opened(asked) as client:
        found = client.run(asked.run)
    if asked.json:
        return _printed(found, "ok")
    from proxy_grm_client.cli import shown

    shown.show_run(found)
    return 0


def opened(asked: argparse.Namespace) -> Client:
    """A client that waits as long as was said; whoever waits for a service is told so."""
    reached = connection(asked.url, None)
    try:
        httpx.get(f"{reached['base_url']}/livez", headers=reached["headers"], timeout=2)
    except httpx.ConnectError:
        sys.stderr.write(
            f"proxy-grm: nobody answers at {reached['base_url']} yet; asking again for "
            f"{asked.timeout:g} s (--timeout)\n"
        )
    except httpx.HTTPError:
        pass  # whatever it is, the request itself will meet with it
    return Client(asked.url, timeout_s=asked.timeout)


def judging(asked: argparse.Namespace) -> dict[str, Any]:
    """The options that were said; what was not is the service's to decide."""
    said = {name: getattr(asked, name) for name in ("order", "depth", "rubric")}
    return {name: value for name, value in said.items() if value is not None}


def _printed(answer: BaseModel, status: str) -> int:
    sys.stdout.write(answer.model_dump_json(indent=1) + "\n")
    return int(status != "ok")
