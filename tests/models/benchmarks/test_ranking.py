from __future__ import annotations

import argparse
import itertools
import json
import random

import httpx
import pytest
from proxy_grm_client import AsyncClient

from models.benchmarks.ranking import ADAPTIVE, ALL_PAIRS, main, measure, rank_all, summary
from models.toyworld.rankings import make_ranking_case

NOBODY = "http://127.0.0.1:9"
CASES = [make_ranking_case(random.Random(n)) for n in range(3)]


class Service:
    """Answers `/rank`: all pairs in the known order, fewer with the best two exchanged."""

    def __init__(self):
        rng = random.Random("ranking/5")
        cases = [*CASES, *(make_ranking_case(rng) for _ in range(3))]
        self.levels = {(c.question, *c.responses): c.levels for c in cases}
        self.asked = []
        self.abstains = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        levels = self.levels[body["question"], *body["responses"]]
        order = sorted(range(len(levels)), key=lambda n: -levels[n])
        few = "budget" not in body
        if few:
            order[3], order[4] = order[4], order[3]
        pairs = [*itertools.combinations(range(len(levels)), 2)][: 48 if few else 120]
        return httpx.Response(200, json=self.answer(order, pairs))

    def answer(self, order, pairs):
        score = {"status": "ok", "strength": 0, "interval": [-1, 1], "win_rate": 0.5, "reward": 0}
        compared = [{"first": a, "second": b, "probability": 0.9, "status": "ok"} for a, b in pairs]
        return {
            "id": "x",
            "status": "abstain" if self.abstains else "ok",
            "reason": "unreadable" if self.abstains else None,
            "ranking": [] if self.abstains else order,
            "scores": [] if self.abstains else [{"index": n, **score} for n in range(len(order))],
            "comparisons": [] if self.abstains else compared,
            "spent": {"comparisons": len(pairs), "tokens": 10 * len(pairs)},
            "rubric": None,
            "release": {"name": "small", "fingerprint": "f1", "purpose": "demo"},
            "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            "timing": {"queue_s": 0, "image_s": 0, "engine_s": len(pairs) / 100, "total_s": 1},
            "cached": False,
        }


def client_of(service) -> AsyncClient:
    return AsyncClient(transport=httpx.MockTransport(service))


async def test_both_ways_are_asked_about_the_same_responses_and_nothing_from_the_cache():
    service = Service()
    async with client_of(service) as client:
        some = await rank_all(client, CASES, "adaptive", ADAPTIVE)
        every = await rank_all(client, CASES, "all pairs", ALL_PAIRS)
    assert [one.case for one in some] == [one.case for one in every] == CASES
    assert [one.tau for one in every] == [1.0] * 3
    assert {body["cache"] for body in service.asked} == {"bypass"}
    assert {body.get("budget") for body in service.asked[:3]} == {None}
    assert {(body["budget"], body["confidence"]) for body in service.asked[3:]} == {(120, 1.0)}
    assert {len(body["responses"]) for body in service.asked} == {16}


async def test_what_is_lost_and_what_is_saved():
    async with client_of(Service()) as client:
        some = await rank_all(client, CASES, "adaptive", ADAPTIVE)
        every = await rank_all(client, CASES, "all pairs", ALL_PAIRS)
    found = summary(some, every)
    # One of the 96 pairs of different levels is the wrong way round.
    assert found["adaptive"]["tau"] == pytest.approx(94 / 96, abs=1e-4)
    assert found["tau_lost"] == pytest.approx(2 / 96, abs=1e-4)
    assert found["tau_between"] == pytest.approx(118 / 120, abs=1e-4)
    assert (found["adaptive"]["comparisons"], found["all_pairs"]["comparisons"]) == (48, 120)
    for cost in ("comparisons", "tokens", "engine_s"):
        assert found[f"{cost}_share"] == 0.4
    assert (found["release"], found["fingerprint"]) == ("small", "f1")


async def test_rankings_that_are_abstentions_have_no_order_but_a_cost():
    service = Service()
    service.abstains = True
    async with client_of(service) as client:
        some = await rank_all(client, CASES, "adaptive", ADAPTIVE)
    found = summary(some, some)
    assert (found["adaptive"]["n"], found["adaptive"]["ranked"]) == (3, 0)
    assert (found["adaptive"]["tau"], found["tau_between"]) == (None, None)
    assert "tau_lost" not in found
    assert found["adaptive"]["tokens"] == 480
    json.dumps(found)


async def test_the_table_has_both_ways_in_each_order_and_what_is_lost(capsys):
    service = Service()
    options = argparse.Namespace(cases=3, seed=5, concurrency=2, orders=["given", "both"])
    async with client_of(service) as client:
        found = await measure(client, options)
    assert found["both"]["adaptive"]["n"] == 3
    assert [body["order"] for body in service.asked] == ["given"] * 6 + ["both"] * 6
    _, _, *rows = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in row.split("|")][1:6] for row in rows]
    assert [row[0] for row in cells[3:]] == [
        "both, adaptive",
        "both, all pairs",
        "both, lost; share",
    ]
    assert cells[0] == ["given, adaptive", "0.9792", "48.0", "480.0", "0.48"]
    assert cells[1] == ["given, all pairs", "1.0", "120.0", "1200.0", "1.2"]
    assert cells[2] == ["given, lost; share", "0.0208", "0.4", "0.4", "0.4"]


def test_without_a_service_it_says_so_at_once(capsys):
    assert main(["--cases", "1", "--url", NOBODY]) == 1
    assert f"Is a service running at {NOBODY}?" in capsys.readouterr().err


def test_its_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m models.benchmarks.ranking --cases 50" in capsys.readouterr().out
