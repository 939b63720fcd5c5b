"""How many lines a worker has in work: as many as the gateway takes without refusing.

As TCP does it: the window grows by one a success until the first refusal, from then on by one
a window's worth of successes, and is halved by a refusal.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

_FIRST_WINDOW = 8
_FIRST_PAUSE_S = 0.25
_LONGEST_ASKED_PAUSE_S = 60.0


class Throttle:
    """A window that moves.

    Args:
        most: the window's upper bound.
        longest_pause_s: after refusals in a row, each of which doubles the pause; when the
            gateway names a longer one, that one counts.
    """

    def __init__(self, most: int, longest_pause_s: float = 5.0) -> None:
        self._most = most
        self.longest_pause_s = longest_pause_s
        self._window = float(min(_FIRST_WINDOW, most))
        self._probing = True
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._paused_until = 0.0
        self._cut_at = 0.0
        self._cuts_in_a_row = 0

    @property
    def window(self) -> int:
        """Lines that may be in work now."""
        return int(self._window)

    @property
    def closed(self) -> bool:
        """Whether nothing is sent any more."""
        return self._closed

    async def enter(self) -> bool:
        """Waits for a place; False when there will be none. Each True needs a `leave`."""
        if self._closed:
            return False
        if not self._waiting and self._may_enter():
            self._in_flight += 1
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result():  # the turn came in the same moment
                self.leave()
            raise

    def leave(self) -> None:
        """Gives a place back."""
        self._in_flight -= 1
        self._admit()

    def succeeded(self) -> None:
        """The gateway took a line."""
        self._cuts_in_a_row = 0
        self._window = min(self._most, self._window + (1 if self._probing else 1 / self._window))
        self._admit()

    def refused(self, sent_at: float, retry_after_s: float = 0.0) -> None:
        """The gateway did not take a line.

        Args:
            sent_at: when it was sent (`time.monotonic`); what was sent before the window was
                last halved does not halve it again.
            retry_after_s: for how long nothing is to be sent, at the least.
        """
        if sent_at >= self._cut_at:
            self._probing = False
            self._window = max(1.0, self._window / 2)
            self._cut_at = time.monotonic()
            self._cuts_in_a_row += 1
        backoff_s = min(self.longest_pause_s, _FIRST_PAUSE_S * 2 ** min(self._cuts_in_a_row, 10))
        pause_s = max(backoff_s, min(retry_after_s, _LONGEST_ASKED_PAUSE_S))
        self._paused_until = max(self._paused_until, time.monotonic() + pause_s)

    def close(self) -> None:
        """Sends whoever waits away."""
        self._closed = True
        self._admit()

    def _may_enter(self) -> bool:
        return self._in_flight < self.window and time.monotonic() >= self._paused_until

    def _admit(self) -> None:
        """Gives free places to those who wait, now or when the pause is over."""
        while self._waiting and (self._closed or self._may_enter()):
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += not self._closed
                turn.set_result(not self._closed)
        pause_s = self._paused_until - time.monotonic()
        if self._waiting and pause_s > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._pause_over)

    def _pause_over(self) -> None:
        self._timer = None
        self._admit()
