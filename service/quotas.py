"""How much a key may ask for: so many judgements a minute, so many requests at a time.

A minute's count is kept here and, where Redis answers, for all gateways together. Without Redis
each gateway goes by its own count: a key then has as many times its quota as there are gateways.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from service.errors import RateLimited
from service.keys import ApiKey
from service.store import Store

_MINUTE_S = 60


class Quotas:
    """What each key has used."""

    def __init__(self, store: Store) -> None:
        self._store = store
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
        """Counts judgements that are asked for.

        Raises:
            RateLimited: the key has asked for as many in this minute as it may.
        """
        if key is None or key.per_minute is None or judgements == 0:
            return
        minute, second = divmod(int(time.time()), _MINUTE_S)
        if minute != self._minute:
            self._minute = minute
            self._asked.clear()
        self._asked[key.name] += judgements
        over = self._asked[key.name] > key.per_minute
        if not over:  # one that is over here is not worth asking about
            counted = f"quota:{key.name}:{minute}"
            everywhere = await self._store.count(counted, judgements, 2 * _MINUTE_S)
            over = everywhere is not None and everywhere > key.per_minute
        if over:
            raise RateLimited(
                f"this key may ask for {key.per_minute} judgements a minute",
                retry_after_s=_MINUTE_S - second,
            )
