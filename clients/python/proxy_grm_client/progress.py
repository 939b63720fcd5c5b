"""A progress bar for batches and jobs, on standard error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxy_grm_client.answers import JobStatus

NEEDS_RICH = "this needs rich: pip install 'proxy-grm-client[cli]'"
_Show = Callable[[int | None, int, Mapping[str, int]], None]


class Finished(Protocol):
    """A result of a batch."""

    @property
    def status(self) -> str:
        """``ok``, ``abstain`` or ``error``."""
        ...


@contextmanager
def progress_bar(
    total: int | None, shown: bool, done: int = 0
) -> Generator[Callable[[Finished], None]]:
    """Counts results, and shows the counts where that is asked for.

    Args:
        total: lines in all, if that is known.
        shown: whether to show anything.
        done: lines that were finished before.

    Raises:
        ModuleNotFoundError: rich is not installed and `shown` is true; says how to get it.
    """
    counts: Counter[str] = Counter()
    with _bar(shown, done) as show:

        def count(result: Finished) -> None:
            counts[result.status] += 1
            show(total, done + counts.total(), counts)

        yield count


@contextmanager
def job_bar(shown: bool) -> Generator[Callable[[JobStatus], None]]:
    """Shows how far a job has come, where that is asked for.

    Raises:
        ModuleNotFoundError: rich is not installed and `shown` is true; says how to get it.
    """
    with _bar(shown) as show:

        def look(status: JobStatus) -> None:
            counts = status.counts
            by_status = {"ok": counts.ok, "abstain": counts.abstain, "error": counts.error}
            finished = {name: number for name, number in by_status.items() if number}
            show(counts.total, sum(finished.values()), finished)

        yield look


@contextmanager
def _bar(shown: bool, done: int = 0) -> Generator[_Show]:
    """What is called with a total, how much of it is finished, and that by status."""
    if not shown:
        yield lambda total, finished, counts: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining
    except ModuleNotFoundError as cause:
        raise ModuleNotFoundError(NEEDS_RICH, name="rich") from cause
    bar = Progress(
        BarColumn(), MofNCompleteColumn(), Remaining(), TextColumn("{task.description}"),
        console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None, completed=done)

        def show(total: int | None, finished: int, counts: Mapping[str, int]) -> None:
            said = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
            bar.update(task, total=total, completed=finished, description=said)

        yield show
