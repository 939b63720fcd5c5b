"""One way to Redis for everything about jobs: its failures have one name here."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from service.concurrency import stop_if_cancelled
from service.errors import StoreUnavailable
from service.jobs.keys import script

_CONNECTIONS = 32  # whoever finds none free waits for one


class Connection:
    """Redis, as patient as a job can be: unlike a cache, it is not given up in a blink.

    Args:
        timeout_s: of one try.
        retries: after the first; every step may be taken twice without harm.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0, retries: int = 3) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries),
        )
        self.redis = redis.asyncio.Redis.from_pool(pool)
        self._scripts: dict[str, Any] = {}

    async def close(self) -> None:
        """Gives the connections back."""
        await self.redis.aclose()

    async def step(self, name: str, keys: list[str], arguments: Sequence[str | int | bytes]) -> Any:
        """Runs one of the scripts, as one step that nothing comes between.

        Raises:
            StoreUnavailable: Redis is gone, slow or full.
        """
        if name not in self._scripts:
            self._scripts[name] = self.redis.register_script(script(name))
        return await self.ask(self._scripts[name](keys=keys, args=arguments))

    async def ask(self, command: Awaitable[Any] | Any) -> Any:
        """The answer to one command or pipeline.

        Raises:
            StoreUnavailable: Redis is gone, slow or full.
        """
        # However the command ends: redis-py 8 finishes it and forgets a cancellation meanwhile.
        try:
            answer = await cast("Awaitable[Any]", command)
        except (RedisError, OSError, TimeoutError) as cause:
            stop_if_cancelled()
            if "OOM" in str(cause):
                raise StoreUnavailable("there is no room for more in the job store") from cause
            raise StoreUnavailable("the job store does not answer") from cause
        stop_if_cancelled()
        return answer
