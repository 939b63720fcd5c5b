from __future__ import annotations

import math
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from loadtests.__main__ import main
from loadtests.arrivals import Answered
from loadtests.objectives import Objective, Objectives, figures_of, quantile

SHIPPED = Path(__file__).parents[2] / "loadtests" / "objectives.toml"


def answers() -> list[Answered]:
    ok = [Answered("ok", "200", 0.0, number / 100) for number in range(1, 101)]
    refused = [Answered("refused", "overloaded", 0.0, 0.05)] * 4
    late = Answered("refused", "deadline_exceeded", 0.0, 2.0)
    return [*ok, *refused, late, Answered("failed", "ReadError", 0.0, 9.0)]


def test_figures_count_all_and_call_none_but_the_ok_ones_good():
    assert figures_of(answers(), 10.0) == {
        "requests": 106,
        "goodput": 10.0,
        "ok_share": 100 / 106,
        "failed": 1,
        "ok_p50_s": 0.5,
        "ok_p99_s": 0.99,
        "refused_p99_s": 0.05,
        "late_share": 1 / 101,
        "sent_late_p99_s": 0.0,
    }


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0], 0.99, 1.0), ([1.0, 2.0], 1.0, 2.0), ([1.0, 2.0], 0, 1.0)],
)
def test_a_quantile_is_one_of_the_values(values: list[float], share: float, found: float):
    assert quantile(values, share) == found


def test_what_was_not_measured_meets_no_objective():
    figures = figures_of([], 1.0)
    assert math.isnan(figures["ok_p99_s"])
    assert not Objective(figure="ok_p99_s", at_most=100).met(figures)
    assert not Objective(figure="ok_share", at_least=0).met(figures)


def test_an_objective_without_a_bound_is_refused():
    with pytest.raises(ValidationError):
        Objective(figure="failed")


@pytest.mark.parametrize("text", ["", '[[objective]]\nfigure = "p99"\nat_most = 1\n'])
def test_a_file_that_holds_to_nothing_is_refused(text: str, tmp_path: Path):
    file = tmp_path / "objectives.toml"
    file.write_text(text)
    with pytest.raises(ValidationError):
        Objectives.read(file)


def test_the_shipped_objectives_allow_no_failure():
    shipped = Objectives.read(SHIPPED).objective
    assert Objective(figure="failed", at_most=0) in shipped


@pytest.mark.parametrize(
    ("failing", "status"), [(0, 0), (1, 1)], ids=["all met", "one request failed"]
)
def test_a_missed_objective_fails_the_run(
    failing: int, status: int, capsys: pytest.CaptureFixture[str]
):
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(500 if asked <= failing else 200, json={})

    run = ["--rate", "1000", "--seconds", "0.2"]
    assert main(run, httpx.MockTransport(answer)) == status
    printed = capsys.readouterr().out
    assert "requests       200" in printed
    assert ("MISSED failed: 1, to be at most 0" in printed) == bool(failing)
    assert asked == 200
