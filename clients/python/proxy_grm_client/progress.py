"""A progress bar for batches, on standard error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

NEEDS_RICH = "this needs rich: pip install 'proxy-grm-client[cli]'"


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
    if not shown:
        yield lambda result: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining
    except ModuleNotFoundError as cause:
        raise ModuleNotFoundError(NEEDS_RICH, name="rich") from cause
    counts: Counter[str] = Counter()
    bar = Progress(
        BarColumn(), MofNCompleteColumn(), Remaining(), TextColumn("{task.description}"),
        console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=total, completed=done)

        def count(result: Finished) -> None:
            counts[result.status] += 1
            said = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
            bar.update(task, advance=1, description=said)

        yield count
