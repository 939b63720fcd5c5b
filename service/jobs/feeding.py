"""A source into chunks, no faster than they are worked on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from service.errors import InvalidRequest, PayloadTooLarge
from service.jobs.leases import Lease, Leases
from service.jobs.sources import OpenedSource, open_source, source_chunks
from service.settings import Settings

_MOST_CHUNKS_AHEAD = 256
_LOOK_EVERY_S = 0.5


class Feeding:
    """Reads sources for jobs that name one."""

    def __init__(self, leases: Leases, settings: Settings) -> None:
        self._leases = leases
        self._prefixes = settings.job_sources
        self._line_bytes = settings.limits.body_bytes
        self._most_lines = settings.jobs.lines

    async def feed(self, lease: Lease) -> None:
        """Adds the source's chunks to the job, from where an earlier worker has come.

        A source that cannot be read to its end makes the job fail.

        Raises:
            LeaseLost, StoreUnavailable
        """
        try:
            await self._feed(lease)
        except (InvalidRequest, PayloadTooLarge) as error:
            await self._leases.fail(lease, error)

    async def _feed(self, lease: Lease) -> None:
        known = await self._leases.source(lease)
        source = await asyncio.to_thread(open_source, known.url, self._prefixes)
        try:
            if await self._leases.pin(lease, source.version) != source.version:
                raise InvalidRequest("the source was changed while the job ran")
            chunks = await self._add(lease, source, known.chunks)
        finally:
            await asyncio.to_thread(source.file.close)
        await self._leases.seal(lease, chunks)

    async def _add(self, lease: Lease, source: OpenedSource, done: int) -> int:
        """Adds what is not done; says how many chunks the source has."""
        number = 0
        reading = source_chunks(source, line_bytes=self._line_bytes, most_lines=self._most_lines)
        async with aclosing(reading) as chunks:
            async for lines in chunks:
                if number >= done:
                    await self._leases.extend(lease, number, lines)
                    while await self._leases.ahead(lease) >= _MOST_CHUNKS_AHEAD:  # noqa: ASYNC110
                        await asyncio.sleep(_LOOK_EVERY_S)
                number += 1
        return number
