from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

import httpx
import pytest
from proxy_grm_client.cli import main
from proxy_grm_client.cli.doctor import examine

READY = {"release": {"name": "r", "fingerprint": "0123456789", "purpose": "production"}}
METRICS = 'proxy_grm_cache_total{outcome="hit"} 3.0\n'


@pytest.fixture
def look(judgement: dict[str, Any]):
    """Examines a service whose answers are changed."""

    def looked(
        now: float | None = None, counts: Sequence[float] = (), **changes: httpx.Response
    ) -> dict[str, tuple[str, str]]:
        counted = iter(counts)

        def metrics() -> httpx.Response:
            more = f'proxy_grm_cache_total{{outcome="unavailable"}} {next(counted)}\n'
            return httpx.Response(200, text=METRICS + more)

        answers = {
            "/livez": httpx.Response(200, headers={"date": formatdate(now, usegmt=True)}),
            "/readyz": httpx.Response(200, json=READY),
            "/score": httpx.Response(200, json=judgement),
            "/metrics": httpx.Response(200, text=METRICS),
        } | {f"/{name}": answer for name, answer in changes.items()}

        def answer(request: httpx.Request) -> httpx.Response:
            path = request.url.path
            return metrics() if counts and path == "/metrics" else answers[path]

        transport = httpx.MockTransport(answer)
        found = examine("http://grm", transport)
        return {one.what: (one.state, one.said) for one in found}

    return looked


def test_a_service_that_is_well(look):
    found = look()
    assert {what: state for what, (state, _) in found.items()} == {
        "server": "well",
        "clock": "well",
        "release": "well",
        "judging": "well",
        "redis": "well",
    }
    assert found["release"][1] == "r 01234567, production"


def test_what_is_ill_is_told(look, problem):
    found = look(
        now=1e9,
        readyz=problem(503, "engine_unavailable"),
        score=problem(422, "context_exceeded"),
    )
    assert found["server"][0] == "well"
    assert {found[what][0] for what in ("clock", "release", "judging")} == {"ill"}
    assert found["redis"] == ("unknown", "nothing could be asked of it: context_exceeded")
    assert "apart" in found["clock"][1]
    assert "not ready" in found["release"][1]
    assert "context_exceeded" in found["judging"][1]


@pytest.mark.parametrize(
    ("counts", "state", "said"),
    [
        ((7.0, 8.0), "ill", "does not answer"),
        ((7.0, 7.0), "well", "answers; was not there 7 times since the start"),
        ((0.0, 0.0), "well", "answers"),
    ],
)
def test_redis_is_as_it_is_now(counts, state, said, look):
    found = look(counts=counts)["redis"]
    assert found[0] == state
    assert found[1].startswith(said)


def test_what_is_not_shown_is_unknown(look):
    found = look(
        livez=httpx.Response(200),
        readyz=httpx.Response(200, text="yes"),
        metrics=httpx.Response(404),
    )
    assert {found[what][0] for what in ("clock", "release", "redis")} == {"unknown"}


def test_an_abstention_is_ill(look, judgement):
    abstains = judgement | {"status": "abstain", "reason": "unreadable", "preferred": None}
    found = look(score=httpx.Response(200, json=abstains | {"probability": None}))
    assert found["judging"] == ("ill", "abstained: unreadable")


def test_another_service_and_none_at_all_are_told():
    other = httpx.MockTransport(lambda request: httpx.Response(404))
    [found] = examine("http://grm", other)
    assert (found.what, found.state) == ("server", "ill")
    assert "another service?" in found.said

    def refused(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    [found] = examine("http://grm", httpx.MockTransport(refused))
    assert "is it running?" in found.said


def test_a_running_service_is_examined(service_url: str, capsys):
    assert main(["doctor", "--url", service_url]) == 1  # it has no Redis
    said = capsys.readouterr().out
    assert "✔ server" in said
    assert "trainers refuse it" in said
    assert "✔ judging" in said
    assert "✘ redis" in said
