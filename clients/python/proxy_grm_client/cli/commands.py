"""One question, one answer: ``score``, ``rubric`` and ``rank``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pydantic import BaseModel

from proxy_grm_client.client import Client


def score(asked: argparse.Namespace) -> int:
    """Judges two responses."""
    responses = (asked.a, asked.b)
    with Client(asked.url) as client:
        judgement = client.score(asked.q, responses, asked.images, **judging(asked))
    if asked.json:
        return _printed(judgement, judgement.status)
    from proxy_grm_client.cli import shown

    shown.show_judgement(asked.q, responses, asked.images, judgement)
    return int(judgement.status != "ok")


def rubric(asked: argparse.Namespace) -> int:
    """Writes a rubric."""
    with Client(asked.url) as client:
        written = client.rubric(asked.q, (asked.a, asked.b), asked.images)
    if asked.json:
        return _printed(written, written.status)
    from proxy_grm_client.cli import shown

    shown.show_rubric(written)
    return int(written.status != "ok")


def rank(asked: argparse.Namespace) -> int:
    """Puts responses in order."""
    with Client(asked.url) as client:
        ranking = client.rank(asked.q, asked.r, asked.images, **judging(asked))
    if asked.json:
        return _printed(ranking, ranking.status)
    from proxy_grm_client.cli import shown

    shown.show_ranking(asked.q, asked.r, ranking)
    return int(ranking.status != "ok")


def judging(asked: argparse.Namespace) -> dict[str, Any]:
    """The options that were said; what was not is the service's to decide."""
    said = {name: getattr(asked, name) for name in ("order", "depth", "rubric")}
    return {name: value for name, value in said.items() if value is not None}


def _printed(answer: BaseModel, status: str) -> int:
    sys.stdout.write(answer.model_dump_json(indent=1) + "\n")
    return int(status != "ok")
