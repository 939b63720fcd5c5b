"""How much of what callers send is in this process at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from service.errors import Overloaded
from service.settings import AdmissionSettings


class Bodies:
    """Bytes of request bodies in memory, and how many requests and uploads they are."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._most_bytes = settings.bodies_bytes
        self._most_requests = settings.running + settings.waiting
        self._most_uploads = settings.uploads
        self._bytes = self._requests = self._uploads = 0

    def hold(self) -> HeldBody:
        """Begins a request's body.

        Raises:
            Overloaded: as many requests as can be admitted or wait are being read or answered.
        """
        if self._requests >= self._most_requests:
            raise Overloaded("too many requests are being read; come back in a moment")
        self._requests += 1
        return HeldBody(self)

    @property
    def uploads(self) -> int:
        """How many there are."""
        return self._uploads

    @contextmanager
    def upload(self) -> Generator[None]:
        """Begins an upload, which waits on disk.

        Raises:
            Overloaded: as many as there may be are here already.
        """
        if self._uploads >= self._most_uploads:
            raise Overloaded("too many uploads are in work; come back in a moment")
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    def take(self, count: int) -> None:
        """Raises `Overloaded` when there is no room for so many bytes more."""
        if self._bytes + count > self._most_bytes:
            raise Overloaded("too many large requests are being read; come back in a moment")
        self._bytes += count

    def give_back(self, count: int) -> None:
        """One request is answered."""
        self._bytes -= count
        self._requests -= 1


class HeldBody:
    """One request's share, until it is released."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies: Bodies | None = bodies
        self._bytes = 0

    def grow(self, count: int) -> None:
        """Raises `Overloaded` when there is no room for so many bytes more."""
        if self._bodies is not None:
            self._bodies.take(count)
            self._bytes += count

    def release(self) -> None:
        """Gives all of it back, once."""
        if self._bodies is not None:
            self._bodies.give_back(self._bytes)
            self._bodies = None
