"""``doctor``: is the service there, ready, and well?"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

import httpx

from proxy_grm_client.answers import Release
from proxy_grm_client.client import Client
from proxy_grm_client.errors import ProxyGrmError
from proxy_grm_client.exchange import connection

_MARKS = {"well": "✔", "ill": "✘", "unknown": "?"}
_MOST_SKEW_S = 5.0
_SPIDER = ("How many legs has a spider?", ("Eight.", "Six."))
_CACHE = re.compile(r'^proxy_grm_cache_total\{outcome="(\w+)"\} ([0-9.e+]+)$', re.M)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and how it is."""

    what: str
    state: Literal["well", "ill", "unknown"]
    said: str


def run(asked: argparse.Namespace) -> int:
    """Looks at everything that the service shows and prints a line of each; 1 if any is ill."""
    findings = examine(asked.url)
    for found in findings:
        sys.stdout.write(f"{_MARKS[found.state]} {found.what:8} {found.said}\n")
    return int(any(found.state == "ill" for found in findings))


def examine(url: str | None, transport: httpx.BaseTransport | None = None) -> list[Finding]:
    """One finding each of server, clock, release, a judgement, and Redis."""
    with httpx.Client(**connection(url, None), timeout=10, transport=transport) as http:
        try:
            alive = http.get("/livez")
        except httpx.HTTPError as error:
            advice = f"{type(error).__name__} at {http.base_url}: is it running? is --url right?"
            return [Finding("server", "ill", advice)]
        if alive.status_code != 200:
            told = f"{http.base_url} answers {alive.status_code} to /livez: another service?"
            return [Finding("server", "ill", told)]
        server = Finding("server", "well", f"answers at {http.base_url}")
        found = [server, _clock(alive), _release(http)]
    with Client(url, timeout_s=30, transport=transport) as client:
        found.append(_judgement(client))
        with httpx.Client(**connection(url, None), timeout=10, transport=transport) as http:
            found.append(_redis(http, client))
    return found


def _clock(response: httpx.Response) -> Finding:
    try:
        there = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return Finding("clock", "unknown", "the server does not say what time it is")
    skew_s = abs(there - time.time())
    if skew_s > _MOST_SKEW_S:
        return Finding("clock", "ill", f"server and this machine are {skew_s:.0f} s apart")
    return Finding("clock", "well", f"server and this machine agree to {skew_s + 1:.0f} s")


def _release(http: httpx.Client) -> Finding:
    response = http.get("/readyz")
    try:
        document = response.json()
        if response.status_code != 200:
            return Finding("release", "ill", f"not ready: {document['detail']}")
        release = Release.model_validate(document["release"])
    except (ValueError, KeyError, TypeError):
        return Finding("release", "unknown", f"/readyz answers {response.status_code}, unread")
    said = f"{release.name} {release.fingerprint[:8]}, {release.purpose}"
    if release.purpose == "demo":
        said += ": worth nothing on photographs; trainers refuse it"
    return Finding("release", "well", said)


def _judgement(client: Client) -> Finding:
    began = time.monotonic()
    try:
        judgement = client.score(*_SPIDER, depth="verdict", cache="bypass")
    except ProxyGrmError as error:
        return Finding("judging", "ill", f"{error.code}: {error}")
    took_s = time.monotonic() - began
    if judgement.status != "ok":
        return Finding("judging", "ill", f"abstained: {judgement.reason}")
    return Finding("judging", "well", f"a verdict in {took_s:.2f} s")


def _redis(http: httpx.Client, client: Client) -> Finding:
    """Whether the cache is there now: one judgement asks for it."""
    before = _unavailable(http)
    if before is None:
        return Finding("redis", "unknown", "the server does not show what its cache does")
    try:
        client.score(*_SPIDER, depth="verdict")
    except ProxyGrmError as error:
        return Finding("redis", "unknown", f"nothing could be asked of it: {error.code}")
    after = _unavailable(http) or 0.0
    if after > before:
        return Finding("redis", "ill", "does not answer: nothing is cached, jobs are refused")
    told = f"; was not there {before:.0f} times since the start" if before else ""
    return Finding("redis", "well", f"answers{told}")


def _unavailable(http: httpx.Client) -> float | None:
    """How often the cache was not there; None where the server does not say."""
    response = http.get("/metrics")
    counts = {name: float(value) for name, value in _CACHE.findall(response.text)}
    if response.status_code != 200 or not counts:
        return None
    return counts.get("unavailable", 0.0)
