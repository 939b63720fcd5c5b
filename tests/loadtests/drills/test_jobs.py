from __future__ import annotations

from typing import Any

import pytest

from loadtests.drills.jobs import compared, job_lines


def result(line: int, probability: float = 0.9, **more: Any) -> dict[str, Any]:
    preferred = 1 if probability >= 0.5 else 2
    found = {"line": line, "id": f"n{line}", "status": "ok"}
    return found | {"preferred": preferred, "probability": probability} | more


CALM = [result(1), result(2, 0.2), result(3, 0.51)]


def test_the_same_results_in_any_order_are_right():
    assert compared(CALM, CALM[::-1], 3, 0.0) == (0, ())


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (CALM[:2], 1),
        ([*CALM, CALM[0]], 1),
        ([*CALM, result(4)], 2),  # not asked for, and nothing to be compared with
        ([result(1), result(2), result(3, 0.51)], 1),
        ([{"line": 1, "id": "n1", "error": {"code": "engine_unavailable"}}, *CALM[1:]], 1),
        ([], 3),
    ],
    ids=["missing", "twice", "too many", "another verdict", "an error", "nothing"],
)
def test_what_is_not_as_in_peace_is_counted(found: list[dict[str, Any]], wrong: int):
    assert compared(CALM, found, 3, 0.0)[0] == wrong


def test_a_verdict_may_turn_only_where_the_tolerance_reaches_the_middle():
    turned = [*CALM[:2], result(3, 0.495)]
    assert compared(CALM, turned, 3, 0.02)[0] == 0
    assert compared(CALM, turned, 3, 0.001)[0] == 1


def test_an_abstention_is_the_same_as_an_abstention():
    abstained = [{"line": 1, "id": "n1", "status": "abstain", "probability": None}]
    assert compared(abstained, abstained, 1, 0.0)[0] == 0
    assert compared(CALM[:1], abstained, 1, 0.0)[0] == 1


def test_lines_are_numbered_and_differ():
    lines = job_lines(5)
    assert len(set(lines)) == 5
    assert all(f'"id": "n{n}"'.encode() in line for n, line in enumerate(lines, 1))
