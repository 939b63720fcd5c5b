from __future__ import annotations

import io

from rich.console import Console

from models.training.data.ledger import Failure, Spent
from models.training.data.progress import DistilProgress

SPENT = Spent(prompt_tokens=1_200, completion_tokens=34)
UNREADABLE = Failure(kind="unreadable", detail="expected ['rubric'], found [bold]x[/bold]")


def shown(do, *, terminal=False, cost=lambda _: None, total=4):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200)
    with DistilProgress(console, total, SPENT, cost) as progress:
        do(progress)
    return out.getvalue()


def test_without_a_terminal_there_are_plain_lines():
    def work(progress):
        progress.finished(None)
        progress.finished(UNREADABLE)

    lines = shown(work, cost=lambda spent: spent.prompt_tokens / 1000).splitlines()
    assert lines == [
        "unreadable: expected ['rubric'], found [bold]x[/bold]",
        "1 of 4 judged, 1 failed, 1,234 tokens, cost 1.20, 0:00:00 left",
    ]


def test_without_prices_no_cost_is_named():
    assert "cost" not in shown(lambda progress: progress.finished(None))


def test_what_earlier_runs_finished_says_nothing_about_the_time_left():
    (line,) = shown(lambda progress: progress.finished_before(2, 1)).splitlines()
    assert line == "2 of 4 judged, 1 failed, 1,234 tokens"


def test_a_problem_is_named_once_and_a_flood_of_them_is_not():
    def work(progress):
        for _ in range(50):
            progress.problem(UNREADABLE)
        for number in range(50):
            progress.problem(Failure(kind="unavailable", detail=f"request {number}"))

    lines = shown(work).splitlines()
    assert len(lines) == 20 + 1
    assert lines[0].startswith("unreadable: ")


def test_on_a_terminal_there_is_a_bar_below_what_is_said():
    def work(progress):
        progress.finished(UNREADABLE)
        for _ in range(3):
            progress.finished(None)

    out = shown(work, terminal=True, cost=lambda _: 0.5)
    assert "━" in out
    assert "100%" in out
    assert "3 of 4 judged, 1 failed, 1,234 tokens, cost 0.50" in out
    assert "found [bold]x[/bold]" in out


def test_no_records_are_no_trouble():
    assert shown(lambda _: None, total=0) == "0 of 0 judged, 0 failed, 1,234 tokens\n"
