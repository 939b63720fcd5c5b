"""How far a distillation is: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from models.training.data.ledger import Failure, FailureKind, Spent

_LINE_EVERY_S = 15.0
_MOST_PROBLEMS = 20


class DistilProgress:
    """Tells a person how far a distillation is; used as a context manager.

    Args:
        console: a live bar where it is a terminal.
        total: records.
        spent: looked at whenever something is told.
        cost: of what is spent; None where it is not known.
    """

    def __init__(
        self, console: Console, total: int, spent: Spent, cost: Callable[[Spent], float | None]
    ) -> None:
        self.total = total
        self._console = console
        self._spent = spent
        self._cost = cost
        self._judged = self._failed = self._finished_before = 0
        self._problems: set[tuple[FailureKind, str]] = set()
        self._bar = Progress(
            TextColumn("distil"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(self.status(), total=total)
        self._began_s = self._told_s = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show()
        self._bar.stop()
        if not self._console.is_terminal:
            self.say(self.status())

    def status(self) -> str:
        """Everything in one line."""
        tokens = self._spent.prompt_tokens + self._spent.completion_tokens
        cost = self._cost(self._spent)
        return ", ".join([
            f"{self._judged:,} of {self.total:,} judged",
            f"{self._failed:,} failed",
            f"{tokens:,} tokens",
            *([f"cost {cost:,.2f}"] if cost is not None else []),
            *([f"{self._left()} left"] if self._left() else []),
        ])  # fmt: skip

    def say(self, line: str) -> None:
        """One line, above the bar where there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def finished_before(self, judged: int, failed: int) -> None:
        """Counts what an earlier run has finished; it says nothing about the pace."""
        self._judged, self._failed = judged, failed
        self._finished_before = judged + failed
        self._show()

    def finished(self, failure: Failure | None) -> None:
        """Counts a record."""
        if failure is None:
            self._judged += 1
        else:
            self._failed += 1
            self.problem(failure)
        self._show()

    def problem(self, failure: Failure) -> None:
        """Names a problem the first time it comes up."""
        problem = (failure.kind, failure.detail)
        if problem in self._problems or len(self._problems) >= _MOST_PROBLEMS:
            return
        self._problems.add(problem)
        self.say(f"{failure.kind}: {failure.detail}")

    def _show(self) -> None:
        self._bar.update(
            self._task, completed=self._judged + self._failed, description=self.status()
        )
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._told_s >= _LINE_EVERY_S:
            self._told_s = now_s
            self.say(self.status())

    def _left(self) -> str:
        """Time to the end at this run's pace; empty while that is unknown, and at the end."""
        finished = self._judged + self._failed
        here = finished - self._finished_before
        if here <= 0 or finished >= self.total:
            return ""
        pace_s = (time.monotonic() - self._began_s) / here
        return str(timedelta(seconds=round(pace_s * (self.total - finished))))
