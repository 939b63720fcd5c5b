"""A circuit breaker: who fails again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]


class Breaker:
    """Counts failures in a row; the caller says how each call ended.

    While half open exactly one call, the trial, is let through; its end alone decides. Calls that
    were let through before it opened no longer matter when they end.

    Args:
        failures: in a row that open it.
        open_s: how long nobody is let through then.
        clock: monotonic seconds.
    """

    def __init__(
        self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._trial: object | None = None

    @property
    def state(self) -> BreakerState:
        """``open`` lets nobody through, ``half_open`` one at a time."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._clock() - self._opened_at >= self._open_s else "open"

    @property
    def left_alone_s(self) -> float:
        """For how long nobody will be let through."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._open_s - self._clock())

    def admit(self) -> object | None:
        """A pass for one call, whose end must be told; None when no call may be made now."""
        if self.state == "closed":
            return object()
        if self.state == "open" or self._trial is not None:
            return None
        self._trial = object()
        return self._trial

    def succeeded(self, admitted: object) -> None:
        """That call was answered: a trial closes it."""
        if self._matters(admitted):
            self._in_a_row, self._opened_at, self._trial = 0, None, None

    def failed(self, admitted: object) -> None:
        """That call failed: open after enough of them, or again after a trial."""
        if self._matters(admitted):
            self._in_a_row += 1
            if self._opened_at is not None or self._in_a_row >= self._limit:
                self._opened_at = self._clock()
            self._trial = None

    def given_up(self, admitted: object) -> None:
        """The caller left before that call ended, which says nothing about the other side."""
        if admitted is self._trial:
            self._trial = None

    def _matters(self, admitted: object) -> bool:
        return self._opened_at is None or admitted is self._trial
