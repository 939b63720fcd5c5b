"""Doing several things at once, with errors as if it were one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

Result = TypeVar("Result")


async def together(works: Iterable[Coroutine[None, None, Result]]) -> list[Result]:
    """Runs all at the same time and returns their results in order.

    When one fails, the others are cancelled and its error is raised, on its own
    and not in a group.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failed:
        # Python 3.11's group cancels the task it is in and leaves it marked as cancelled.
        if task is not None and task.cancelling() > before:
            task.uncancel()
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


async def unless(
    happens: asyncio.Event, work: Coroutine[None, None, Result], error: Exception
) -> Result:
    """The work's result, or the error as soon as that happens; the work is then cancelled."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(happens.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise error
        return working.result()
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


def stop_if_cancelled() -> None:
    """Ends the current task if it was cancelled inside a library that swallowed it.

    Raises:
        asyncio.CancelledError: it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
