"""Asynchronous work for callers that wait, and for those whose event loops come and go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_STARTING = threading.Lock()  # for all of them: one of its own could not be pickled


class BackgroundLoop:
    """An event loop in a thread of its own, so that connections outlive the caller's loop.

    It starts with the first piece of work; until then the object can be pickled. Any thread may
    bring work.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of the work; blocks."""
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    async def awaited(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of the work, awaited from any loop; cancelling the wait cancels the work."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def close(self) -> None:
        """Ends the thread; it starts again with the next piece of work."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with _STARTING:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="proxy-grm rewards", daemon=True
                )
                self._thread.start()
            return self._loop
