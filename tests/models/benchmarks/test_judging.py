from __future__ import annotations

import json
import random
from argparse import Namespace

import httpx
import pytest
from proxy_grm_client import AsyncClient, EngineUnavailable

from models.benchmarks.judging import (
    Answer,
    AskedTwice,
    Mode,
    against,
    ask_twice,
    compare,
    figures,
    main,
    measure,
    modes,
)
from models.benchmarks.toyworld import fresh_cases
from models.toyworld import CaseOptions, make_case

NOBODY = "http://127.0.0.1:9"
RELEASE = {"name": "small", "fingerprint": "f1", "purpose": "demo"}
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 64, "calls": 2}


def problem(code: str, status: int, detail: str = "no") -> httpx.Response:
    return httpx.Response(status, json={"code": code, "detail": detail, "request_id": "r"})


class Service:
    """Answers `/score` as a judge who knows the labels and favours what it reads first.

    Args:
        cases: that it knows.
        favour: how much likelier it finds what it reads first.
        escalates: whether it knows that order.
        evaluators: that it has.
    """

    def __init__(self, cases, favour=0.0, *, escalates=True, evaluators=("proxy",)):
        self.favour, self.escalates, self.evaluators = favour, escalates, evaluators
        self.labels = {(c.question, *c.responses): c.label for c in cases}
        self.labels |= {(c.question, *c.responses[::-1]): 3 - c.label for c in cases}
        self.asked = []
        self.fails = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append(body)
        order = body.get("order", "given")
        if self.fails is not None:
            return self.fails
        if order == "escalate" and not self.escalates:
            return problem("invalid_request", 422, "order: given, both or adaptive")
        if unknown := set(body.get("evaluators", ())) - set(self.evaluators):
            return problem("not_found", 404, f"no evaluator is called {unknown}")
        label = self.labels.get((body["question"], *body["responses"]))
        p = (0.8 if label == 1 else 0.2) + (self.favour if order == "given" else 0)
        return httpx.Response(200, json=answer(p, order, body.get("evaluators", ())))


def answer(p, order="given", evaluators=()):
    panel = {"preferred": 1, "probability": 0.6, "agreement": 1.0} if evaluators else None
    one = {"status": "ok", "reason": None, "preferred": 1, "probability": 0.5, "latency_s": 0.1}
    return {
        "id": "x",
        "status": "abstain" if p is None else "ok",
        "reason": "unreadable" if p is None else None,
        "preferred": None if p is None else 1 if p >= 0.5 else 2,
        "probability": p,
        "order_consistent": None,
        "stopped": "sure" if order == "adaptive" else "complete",
        "rubric": None,
        "evaluation": None,
        "verdicts": [],
        "evaluators": [{"name": name, **one, "usage": USAGE} for name in evaluators],
        "panel": panel,
        "release": RELEASE,
        "usage": USAGE,
        "timing": {"queue_s": 0, "image_s": 0, "engine_s": 0, "total_s": 0},
        "cached": False,
    }


def client_of(service) -> AsyncClient:
    return AsyncClient(transport=httpx.MockTransport(service))


def case(label, stratum):
    rng = random.Random(0)
    made = (make_case(rng, CaseOptions(stratum)) for _ in range(1_000))
    return next(c for c in made if c.label == label)


def twice(label, plain, turned, stratum="image"):
    one, two = (Answer(p, tokens=n, calls=1, stopped="complete") for p, n in (plain, turned))
    return AskedTwice(case(label, stratum), one, two)


# Summing up


def test_a_row_says_how_good_how_even_and_how_dear():
    row = figures([
        twice(1, (0.95, 10), (0.95, 20)),  # right, the same both ways
        twice(2, (0.7, 30), (0.4, 40)),  # wrong, turned it flips
        twice(2, (0.2, 0), (0.1, 0), "rubric"),  # right
        twice(1, (None, 0), (0.9, 0), "text"),  # an abstention
    ])  # fmt: skip
    assert row["n"] == 4
    assert row["accuracy"] == 0.5
    assert row["accuracy_interval_95"] == [0.15, 0.85]
    assert row["accuracy_image_decided"] == 0.5
    assert row["accuracy_rubric_decided"] == 1.0
    assert row["accuracy_text_decided"] == 0.0
    assert row["readable"] == 0.75
    assert row["order_consistent"] == 0.5
    assert row["verdict_flips"] == pytest.approx(1 / 3, abs=1e-4)
    assert row["undecided"] == pytest.approx(2 / 3, abs=1e-4)
    # Confidences 0.95 and 0.8 (right), 0.7 and 0.5 (wrong).
    assert row["auroc"] == 1.0
    assert row["tokens"] == 12.5
    assert row["calls"] == 1.0
    assert row["asymmetry"] == pytest.approx((0 + 0.3 + 0.1) / 3, abs=1e-4)
    assert row["stopped"] == {"complete": 8}


def test_of_abstentions_alone_there_are_no_figures_about_probability():
    row = figures([twice(1, (None, 5), (None, 5))])
    assert (row["accuracy"], row["readable"], row["order_consistent"]) == (0.0, 0.0, 0.0)
    for missing in ("verdict_flips", "undecided", "auroc", "asymmetry", "accuracy_text_decided"):
        assert row[missing] is None


# Asking


async def test_every_case_is_asked_both_ways_round_and_answered_about_itself():
    cases = fresh_cases(6, 3)
    service = Service(cases, favour=0.1)
    async with client_of(service) as client:
        found = await ask_twice(client, cases, Mode("given", {}), concurrency=4)
    assert [one.case for one in found] == cases
    for one in found:
        right = 0.8 if one.case.label == 1 else 0.2
        assert one.both == pytest.approx((right + 0.1, right - 0.1))
        assert one.plain.tokens == 110
    asked = {(body["question"], *body["responses"]) for body in service.asked}
    assert asked == set(service.labels)
    assert {body["cache"] for body in service.asked} == {"bypass"}


async def test_the_panels_verdict_counts_and_its_members_tokens_too():
    cases = fresh_cases(2, 3)
    panel = Mode("panel", {"evaluators": ["proxy"]}, panel=True)
    async with client_of(Service(cases)) as client:
        found = await ask_twice(client, cases, panel, concurrency=1)
    assert [one.plain.probability for one in found] == [0.6, 0.6]
    assert [one.turned.probability for one in found] == pytest.approx([0.4, 0.4])
    assert {one.plain.tokens for one in found} == {220}


async def test_favour_for_what_is_read_first_is_seen_in_given_and_not_in_both():
    cases = fresh_cases(40, 3)
    service = Service(cases, favour=0.35)
    async with client_of(service) as client:
        found, left_out = await compare(client, cases, modes(0.7), concurrency=8)
    assert left_out == {}
    assert found["given"]["asymmetry"] == pytest.approx(0.7)
    assert found["given"]["verdict_flips"] == 1.0
    for even in ("both", "adaptive", "both + votes 4"):
        assert (found[even]["asymmetry"], found[even]["verdict_flips"]) == (0.0, 0.0)
        assert (found[even]["accuracy"], found[even]["undecided"]) == (1.0, 1.0)
    assert found["adaptive"]["stopped"] == {"sure": 80}


async def test_each_mode_asks_for_what_its_name_says():
    cases = fresh_cases(1, 3)
    service = Service(cases)
    async with client_of(service) as client:
        await compare(client, cases, modes(0.5, ["proxy"]), concurrency=1)
    names = ("order", "votes", "temperature", "depth", "evaluators")
    asked = [{name: body[name] for name in names if name in body} for body in service.asked[::3]]
    assert asked == [
        {},
        {"order": "both"},
        {"order": "adaptive"},
        {"order": "escalate"},
        {"votes": 4, "temperature": 0.5},
        {"order": "both", "votes": 4, "temperature": 0.5},
        {"depth": "verdict"},
        {"evaluators": ["proxy"]},
    ]


def test_what_a_cheaper_mode_loses_and_saves():
    rows = {
        "adaptive": {"accuracy": 0.915, "tokens": 300.0},
        "both + votes 4": {"accuracy": 0.92, "tokens": 1200.0},
    }
    saved = against(rows, "adaptive", "both + votes 4")
    assert saved == {"points_lost": pytest.approx(0.5), "tokens_share": 0.25}
    assert against(rows, "adaptive", "given") is None


async def test_a_mode_that_the_service_has_not_is_left_out_with_the_reason():
    cases = fresh_cases(2, 3)
    async with client_of(Service(cases, escalates=False)) as client:
        found, left_out = await compare(client, cases, modes(0.7), concurrency=1)
    assert "escalate" not in found
    assert left_out == {"escalate": "order: given, both or adaptive"}


async def test_a_service_that_fails_is_an_error_and_no_figure():
    cases = fresh_cases(1, 3)
    service = Service(cases)
    service.fails = problem("engine_unavailable", 503)
    async with AsyncClient(transport=httpx.MockTransport(service), timeout_s=0.2) as client:
        with pytest.raises(EngineUnavailable):
            await compare(client, cases, modes(0.7), concurrency=1)


async def test_the_table_has_a_row_a_mode_and_the_panel_those_who_are_there(capsys):
    options = Namespace(
        cases=4,
        seed=3,
        concurrency=2,
        temperature=0.7,
        evaluators=["nobody", "proxy"],
        modes=["given", "panel"],
    )
    service = Service(fresh_cases(4, 3))
    async with client_of(service) as client:
        found = await measure(client, options)
    assert [*found["modes"]] == ["given", "panel"]
    assert found["evaluators"] == ["proxy"]
    assert (found["release"], found["fingerprint"]) == ("small", "f1")
    assert (found["left_out"], found["temperature_of_votes"]) == ({}, 0.7)
    json.dumps(found)
    head, line, given, panel = capsys.readouterr().out.strip().splitlines()
    assert [cell.strip() for cell in head.split("|")][1:4] == ["mode", "accuracy", "image"]
    assert set(line) <= set("|-: ")
    assert [cell.strip() for cell in given.split("|")][1:3] == ["given", "1.0"]
    assert panel.split("|")[1].strip() == "panel"


# The command line


def test_without_a_service_it_says_so_at_once(capsys):
    assert main(["--cases", "1", "--url", NOBODY]) == 1
    assert f"Is a service running at {NOBODY}?" in capsys.readouterr().err


def test_an_unknown_mode_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--modes", "given,fast", "--url", NOBODY])
    assert ended.value.code == 2
    assert "no mode is called fast: there are given, both, adaptive" in capsys.readouterr().err


def test_its_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m models.benchmarks.judging --cases 2000" in capsys.readouterr().out
