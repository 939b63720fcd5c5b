"""Asking a service many things at once, with a bar to look at."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import httpx
from proxy_grm_client import ProxyGrmError
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

T = TypeVar("T")
R = TypeVar("R")


async def ask_all(
    title: str, questions: Sequence[T], ask: Callable[[T], Awaitable[R]], concurrency: int
) -> list[R]:
    """Asks every question, `concurrency` at a time; the answers in their order.

    Raises:
        Exception: the first that `ask` raises.
    """
    places = asyncio.Semaphore(concurrency)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=len(questions))

        async def one(question: T) -> R:
            async with places:
                answer = await ask(question)
            progress.advance(task)
            return answer

        return await asyncio.gather(*(one(question) for question in questions))


def benchmark_parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """The options that every benchmark of a running service has."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="of the service")
    parser.add_argument("--cases", type=at_least_one, default=500, help="in each run")
    parser.add_argument("--seed", type=int, default=1, help="training uses others")
    parser.add_argument("--concurrency", type=at_least_one, default=64, help="requests at a time")
    return parser


def at_least_one(text: str) -> int:
    """An argument that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> None:
    """Prints a table that is Markdown as it stands; a figure that there is none of is a dash."""
    table = Table(box=MARKDOWN)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    Console(width=sum(len(column) + 12 for column in columns)).print(table)


def print_figures(url: str, measure: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> int:
    """Measures, prints one JSON object as the last line, and gives the exit status."""
    try:
        httpx.get(f"{url}/livez", timeout=5)  # before minutes of retries
        found = asyncio.run(measure())
    except (ProxyGrmError, httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"{error}\nIs a service running at {url}?", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0
