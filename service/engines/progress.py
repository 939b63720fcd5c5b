"""Does an engine that has work go on with it? A process may live, and say so, and do nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager


class Progress:
    """Whether anything comes of an engine's work.

    A step may rightly take long, and whoever waited may have left, so that nothing has come for a
    while proves nothing. The engine is then asked for a single token: one that works has it in a
    few steps, or something else comes meanwhile.

    Args:
        probe: asks for that token.
        patience_s: without anything until it is asked, and then for the answer.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]], patience_s: float) -> None:
        self._probe = probe
        self._patience_s = patience_s
        self._working = 0
        self._owed_since: float | None = None

    @contextmanager
    def generating(self) -> Generator[None]:
        """One generation; that it ends well shows that the engine works."""
        if self._owed_since is None:
            self._owed_since = time.monotonic()
        self._working += 1
        done = False
        try:
            yield
            done = True
        finally:
            self._working -= 1
            if done:
                self.moved()

    def moved(self) -> None:
        """Something came of the work."""
        self._owed_since = time.monotonic() if self._working else None

    async def stalled(self) -> bool:
        """Whether the engine has work and does nothing; takes the patience to find that out."""
        since = self._owed_since
        if since is None or time.monotonic() - since < self._patience_s:
            return False
        try:
            async with asyncio.timeout(self._patience_s):
                await self._probe()
        except TimeoutError:
            return self._owed_since == since
        except Exception:  # whatever it is: the engine says something, or is gone, which others see
            pass
        self.moved()
        return False
