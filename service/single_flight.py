"""Doing once what several ask for at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Any]
    waiting: int = 0


class SingleFlight:
    """Work in progress, by what it is.

    Who comes while it is done gets the same result or the same error. One who leaves does not
    stop it; the last one to leave does, and waits until it has stopped.
    """

    def __init__(self) -> None:
        self._flying: dict[Hashable, _Flight] = {}

    async def run(self, key: Hashable, work: Callable[[], Coroutine[None, None, Result]]) -> Result:
        """The result of `work`, or of the same work that somebody else has begun."""
        flight = self._flying.get(key)
        if flight is None:
            flight = self._flying[key] = _Flight(asyncio.create_task(work()))
            flight.task.add_done_callback(lambda _: self._landed(key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._landed(key, flight)
                flight.task.cancel()
                await asyncio.wait([flight.task])

    def _landed(self, key: Hashable, flight: _Flight) -> None:
        if self._flying.get(key) is flight:
            del self._flying[key]
