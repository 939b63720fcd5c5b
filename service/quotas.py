"""How much a key may ask for: so many judgements a minute, so many requests at a time.

A minute's count is kept here and, where Redis answers, for all gateways together. Without Redis
each gateway goes by its own count: a key then has as many times its quota as there are gateways.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

from service.errors import InvalidRequest, RateLimited
from service.keys import ApiKey
from service.store import Store

_MINUTE_S = 60


class Quotas:
    """What each key has used.

    Args:
        store: counts for all gateways.
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._minute = 0
        self._asked: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()

    @contextmanager
    def request(self, key: ApiKey) -> Generator[None]:
        """One request, while it lasts.

        Raises:
            RateLimited: the key has as many in this gateway as it may.
        """
        if key.at_once is not None and self._at_once[key.name] >= key.at_once:
            raise RateLimited(f"this key may have {key.at_once} requests at a time")
        self._at_once[key.name] += 1
        try:
            yield
        finally:
            self._at_once[key.name] -= 1

    async def spend(self, key: ApiKey | None, judgements: int = 1) -> None:
        """Counts judgements that are asked for; those that are refused do not count.

        Raises:
            RateLimited: the key has asked for as many in this minute as it may.
        """
        if key is None or key.per_minute is None or judgements == 0:
            return
        minute, second = divmod(int(self._clock()), _MINUTE_S)
        if minute != self._minute:
            self._minute = minute
            self._asked.clear()
        if not await self._counted(key.name, key.per_minute, judgements):
            raise RateLimited(
                f"this key may ask for {key.per_minute} judgements a minute",
                retry_after_s=_MINUTE_S - second,
            )

    async def spend_rest(self, key: ApiKey | None, judgements: int) -> None:
        """Counts all but the first that one request asks for: that was, before it was read.

        Raises:
            InvalidRequest: it asks for more than the key may in any minute.
            RateLimited: the key has asked for as many in this minute as it may.
        """
        if key is not None and key.per_minute is not None and judgements > key.per_minute:
            raise InvalidRequest(
                f"this asks for {judgements} judgements at once; this key may ask for "
                f"{key.per_minute} a minute"
            )
        await self.spend(key, max(0, judgements - 1))

    async def _counted(self, name: str, most: int, judgements: int) -> bool:
        """Counts them in this minute where there is room for all."""
        minute = self._minute
        if self._asked[name] + judgements > most:  # not worth asking Redis about
            return False
        self._asked[name] += judgements
        counted = f"quota:{name}:{minute}"
        everywhere = await self._store.count(counted, judgements, 2 * _MINUTE_S)
        if everywhere is None or everywhere <= most:
            return True
        await self._store.count(counted, -judgements, 2 * _MINUTE_S)
        if minute == self._minute:  # else it is forgotten already
            self._asked[name] -= judgements
        return False
