from __future__ import annotations

import math

import pytest

from loadtests.drills import running
from loadtests.drills.__main__ import main
from loadtests.drills.rows import DrillFailed, NotHere, Row, Scale
from loadtests.drills.running import (
    DRILLS,
    ENGINES,
    carried_out,
    objectives,
    planned,
    shown,
)
from loadtests.objectives import Bound

GOOD = Row("some load", 10, ok=8, refused=2, wrong=0, figures={"share": 0.9})


@pytest.fixture
def drill(monkeypatch: pytest.MonkeyPatch):
    """Puts a drill of its own in the table."""

    def put(act: object) -> None:
        def run(*_: object) -> Row:
            if isinstance(act, Exception):
                raise act
            assert isinstance(act, Row)
            return act

        monkeypatch.setattr(running, "DRILLS", {"mine": run})

    return put


def test_a_drill_that_reaches_all_misses_nothing(drill):
    drill(GOOD)
    done = carried_out("mine", Scale(), {"share": Bound(at_least=0.9)})
    assert done.missed == ()
    assert done.cells == ("mine", "some load", "10", "8", "2", "0", "")


@pytest.mark.parametrize(
    ("found", "bounds", "missed"),
    [
        (GOOD.plus(requests=1, wrong=1), {}, ["1 wrong or lost"]),
        (GOOD, {"share": Bound(at_most=0.5)}, ["share is 0.9, to be at most 0.5"]),
        (GOOD, {"other": Bound(at_most=1)}, ["other is nan, to be at most 1"]),
        (DrillFailed("it hung"), {}, ["it hung"]),
    ],
)
def test_what_is_missed_is_said(found: object, bounds: dict[str, Bound], missed: list[str], drill):
    drill(found)
    done = carried_out("mine", Scale(), bounds)
    assert list(done.missed) == missed
    assert f"MISSED mine: {missed[0]}" in shown([done])


def test_what_cannot_be_tried_here_says_why_and_is_not_missed(drill):
    drill(NotHere("needs root"))
    done = carried_out("mine", Scale(), {"share": Bound(at_least=1)})
    assert done.missed == ()
    assert "not run: needs root" in shown([done])


def test_every_objective_is_of_a_drill():
    assert set(objectives()) <= set(DRILLS)
    assert set(ENGINES) <= set(DRILLS)


def test_drills_run_with_the_engines_they_are_about():
    assert planned(["overload", "memory"], None) == [
        ("overload", "scripted"),
        ("memory", "scripted"),
        ("memory", "vllm"),
    ]
    assert {name for name, _ in planned([], None)} == set(DRILLS)
    assert planned(["memory"], "vllm") == [("memory", "vllm")]


def test_the_engine_is_told_unless_it_is_the_scripted_one(drill):
    drill(GOOD)
    assert carried_out("mine", Scale(), {}).name == "mine"
    assert carried_out("mine", Scale(engine="vllm"), {}).name == "mine, vllm"


def test_an_unknown_drill_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["overlaod"])
    assert ended.value.code == 2
    assert "overload" in capsys.readouterr().err


def test_a_scale_makes_a_drill_smaller_down_to_the_least():
    small = Scale(0.01)
    assert (small.count(20_000, 60), small.count(1000, 60)) == (200, 60)
    assert math.isclose(small.seconds(60, 2), 2)
    assert Scale().count(20_000, 60) == 20_000
