"""What outlives a request, on Redis: judgements that may be given again, rubrics, and counts.

Redis slow, full or gone costs a second judgement, never an error: every call
here either answers quickly or counts as a miss.

    judgement:<tenant>:<release fingerprint>:<digest of the question put>   cache.judgement_ttl_s
    rubric:<tenant>:<id>                                     cache.rubric_ttl_s
    counts:<release fingerprint>[:<tenant>:<run id>]         cache.run_ttl_s after the last
    run:<tenant>:<run id>                                    cache.run_ttl_s after the last
    record:<tenant>:<id of a rubric>                         cache.rubric_ttl_s after the last
    heard:<tenant>:<id of a rubric>:<digest of a comparison> cache.judgement_ttl_s after the last
    quota:<key's name>:<minute>                              two minutes
    flight:<tenant>:<what is in work>                        15 s, renewed
    answer:<tenant>:<digest of an Idempotency-Key>           cache.answer_ttl_s

What one tenant has kept no other finds. Only texts, digests and sums are kept, no image bytes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import redis.asyncio
import structlog
from pydantic import TypeAdapter, ValidationError
from redis import exceptions
from redis.exceptions import RedisError

from models.comparison import Comparison
from models.rubric import Rubric
from service.concurrency import stop_if_cancelled
from service.errors import StoreUnavailable
from service.judging import JudgingOptions
from service.metrics import Metrics
from service.settings import CacheSettings
from service.tenancy import current_tenant

_log = structlog.get_logger(__name__)

_PREFIX = "proxy_grm"
_RUBRIC = TypeAdapter(Rubric)
_TIMEOUT_S = 0.25
_MOST_IN_VAIN = 3
_AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
_MINE = "if redis.call('get', KEYS[1]) == ARGV[1] then "
_RENEW = _MINE + "redis.call('expire', KEYS[1], ARGV[2]) end"
_UNCLAIM = _MINE + "redis.call('del', KEYS[1]) end"


@dataclass(frozen=True, slots=True)
class RubricRecord:
    """How well a rubric has done: opinions that evaluators formed from it alone.

    Attributes:
        opinions: how many there were, where it was known what they should have been.
        agreed: how many of them reached it.
    """

    opinions: int
    agreed: int


class _Quiet(RedisError):
    """Nobody is asking for a moment."""


class Store:
    """The service's memory. All of it may be lost at any time.

    Args:
        quiet_s: for how long nobody asks after Redis has kept some in a row waiting in vain.
    """

    def __init__(
        self, url: str, settings: CacheSettings, metrics: Metrics, *, quiet_s: float = 1.0
    ) -> None:
        self._client = redis.asyncio.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        self._quiet_s = quiet_s
        self._quiet_until = 0.0
        self._in_vain = 0
        self._settings = settings
        self._metrics = metrics

    async def close(self) -> None:
        """Gives the connections back."""
        await self._client.aclose()

    @property
    def _redis(self) -> redis.asyncio.Redis:
        """Redis, unless all who asked last have waited in vain.

        A request asks several times, holding its place: to wait each time would halve what a
        gateway can do while the network to Redis is cut.
        """
        if time.monotonic() < self._quiet_until:
            raise _Quiet
        return self._client

    async def judgement(self, key: str, *, counted: bool = True) -> dict[str, Any] | None:
        """A judgement kept under `key`; None when there is none or Redis does not answer.

        Args:
            key: from `judgement_key`.
            counted: as a hit or a miss.
        """
        kept = await self._get(f"judgement:{current_tenant()}:{key}")
        if counted:
            self._metrics.cache.labels("miss" if kept is None else "hit").inc()
        return kept

    async def keep_judgement(self, key: str, judgement: dict[str, Any]) -> None:
        """Keeps a judgement for as long as the settings say."""
        await self._set(
            f"judgement:{current_tenant()}:{key}", judgement, self._settings.judgement_ttl_s
        )

    async def rubric(self, rubric_id: str) -> Rubric | None:
        """The rubric with that id; None when it is unknown or forgotten.

        Raises:
            StoreUnavailable: nobody knows, for Redis does not answer.
        """
        kept = await self._get(f"rubric:{current_tenant()}:{rubric_id}", needed=True)
        try:
            return _RUBRIC.validate_python(kept) if kept is not None else None
        except ValidationError:  # written by another version of this service
            return None

    async def keep_rubric(self, rubric: Rubric) -> None:
        """Keeps a rubric so that it can be named by its id.

        The id is the text's: the same text without its justification, given back
        by a client, does not make the one that was written be forgotten.
        """
        await self._set(
            f"rubric:{current_tenant()}:{rubric.id}",
            asdict(rubric),
            self._settings.rubric_ttl_s,
            keep_older=rubric.justification is None,
        )

    async def counts(self, key: str) -> dict[str, float] | None:
        """Sums by name; None when nothing was counted under `key`, or Redis does not answer."""
        try:
            asked: Any = self._redis.hgetall(
                f"{_PREFIX}:counts:{key}"
            )  # bytes, as the client is set up
            kept: dict[bytes, bytes] = await asked
            self._answered()
            return {name.decode(): float(amount) for name, amount in kept.items()} or None
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self._unavailable(error)
            return None

    async def add_counts(self, keys: Sequence[str], counts: Mapping[str, float]) -> None:
        """Adds to the sums under each key; what Redis does not take is lost."""
        try:
            async with self._redis.pipeline() as pipeline:
                for key in keys:
                    for name, amount in counts.items():
                        pipeline.hincrbyfloat(f"{_PREFIX}:counts:{key}", name, amount)
                    pipeline.expire(f"{_PREFIX}:counts:{key}", self._settings.run_ttl_s)
                await pipeline.execute()
            self._answered()
        except (RedisError, OSError, TimeoutError) as error:
            self._unavailable(error)

    async def release_of_run(
        self, run_id: str, fingerprint: str, *, moved: bool = False
    ) -> str | None:
        """The fingerprint of the release that a run began with; None: nobody knows.

        Args:
            run_id: one that has not begun begins now.
            fingerprint: of the release that it begins with.
            moved: it goes on with that one, whatever it began with.
        """
        key = f"{_PREFIX}:run:{current_tenant()}:{run_id}"
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.set(key, fingerprint, nx=not moved)
                pipe.expire(key, self._settings.run_ttl_s)
                pipe.get(key)
                *_, kept = await pipe.execute()
            self._answered()
        except (RedisError, OSError, TimeoutError) as error:
            self._unavailable(error)
            return None
        return kept.decode() if kept is not None else None

    async def record(
        self, rubric_id: str, about: str = "", agreed: Mapping[str, bool] = MappingProxyType({})
    ) -> RubricRecord:
        """Adds to a rubric's record and returns all of it; zeros where Redis does not answer.

        An opinion counts once: asked again about the same comparison, as for a judgement out of
        the cache, an evaluator says the same again.

        Args:
            rubric_id: whose record.
            about: the comparison, from `comparison_key`.
            agreed: by the evaluator's name, whether its opinion is the verdict.
        """
        key = f"{_PREFIX}:record:{current_tenant()}:{rubric_id}"
        try:
            new = await self._unheard(f"{rubric_id}:{about}", tuple(agreed))
            async with self._redis.pipeline(transaction=False) as pipe:
                if new:
                    pipe.hincrby(key, "opinions", len(new))
                    pipe.hincrby(key, "agreed", sum(agreed[name] for name in new))
                    pipe.expire(key, self._settings.rubric_ttl_s)
                pipe.hmget(key, ["opinions", "agreed"])
                *_, counted = await pipe.execute()
            self._answered()
            return RubricRecord(*(int(count or 0) for count in counted))
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self._unavailable(error)
            return RubricRecord(0, 0)

    async def _unheard(self, about: str, names: tuple[str, ...]) -> list[str]:
        """Those of the names that had not been heard about it, and are now."""
        if not names:
            return []
        key = f"{_PREFIX}:heard:{current_tenant()}:{about}"
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.sadd(key, name)
            pipe.expire(key, self._settings.judgement_ttl_s)
            *added, _ = await pipe.execute()
        return [name for name, was_new in zip(names, added, strict=True) if was_new]

    async def answer(self, name: str) -> dict[str, Any] | None:
        """What was answered under an ``Idempotency-Key`` of this digest."""
        return await self._get(f"answer:{current_tenant()}:{name}")

    async def keep_answer(self, name: str, answer: dict[str, Any]) -> None:
        """Keeps an answer for as long as the settings say."""
        await self._set(f"answer:{current_tenant()}:{name}", answer, self._settings.answer_ttl_s)

    async def claim(self, key: str, token: str, lease_s: int) -> bool | None:
        """Claims work for who holds the token; False: somebody has it; None: nobody knows."""
        try:
            claimed = await self._redis.set(f"{_PREFIX}:flight:{key}", token, nx=True, ex=lease_s)
            self._answered()
        except (RedisError, OSError, TimeoutError) as error:
            self._unavailable(error)
            return None
        return bool(claimed)

    async def renew(self, key: str, token: str, lease_s: int) -> None:
        """Holds on to a claim."""
        await self._if_mine(_RENEW, key, token, lease_s)

    async def unclaim(self, key: str, token: str) -> None:
        """Gives a claim back."""
        await self._if_mine(_UNCLAIM, key, token, 0)

    async def _if_mine(self, script: str, key: str, token: str, lease_s: int) -> None:
        try:
            await self._redis.execute_command(
                "EVAL", script, 1, f"{_PREFIX}:flight:{key}", token, lease_s
            )
            self._answered()
        except (RedisError, OSError, TimeoutError) as error:
            self._unavailable(error)

    async def count(self, key: str, amount: int, ttl_s: int) -> int | None:
        """The sum of all amounts under `key`, this one included; None: nobody knows.

        Args:
            key: that expires.
            amount: less than 0: so much is given back.
            ttl_s: from now on.
        """
        try:
            async with self._redis.pipeline(transaction=False) as both:
                both.incrby(f"{_PREFIX}:{key}", amount)
                both.expire(f"{_PREFIX}:{key}", ttl_s)
                counted, _ = await both.execute()
            self._answered()
        except (RedisError, OSError, TimeoutError) as error:
            self._unavailable(error)
            return None
        return int(counted)

    async def _get(self, key: str, *, needed: bool = False) -> dict[str, Any] | None:
        try:
            kept = await self._redis.get(f"{_PREFIX}:{key}")
            self._answered()
            return json.loads(kept) if kept is not None else None
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self._unavailable(error)
            if needed and not isinstance(error, ValueError):
                raise StoreUnavailable("what is kept is out of reach for now") from error
            return None

    async def _set(
        self, key: str, value: dict[str, Any], ttl_s: int, *, keep_older: bool = False
    ) -> None:
        try:
            await self._redis.set(f"{_PREFIX}:{key}", json.dumps(value), ex=ttl_s, nx=keep_older)
            self._answered()
        except (RedisError, OSError, TimeoutError) as error:
            self._unavailable(error)

    def _answered(self) -> None:
        """Notes that Redis does answer, to a caller that is still there."""
        self._in_vain = 0
        stop_if_cancelled()  # redis-py 8 finishes its command and forgets the cancellation

    def _unavailable(self, error: Exception) -> None:
        """Notes that Redis does not answer, to a caller that is still there."""
        self._metrics.cache.labels("unavailable").inc()
        if isinstance(error, _AWAY):
            self._in_vain += 1
            if self._in_vain >= _MOST_IN_VAIN:
                self._quiet_until = time.monotonic() + self._quiet_s
        if not isinstance(error, _Quiet):
            _log.warning("store unavailable", error=type(error).__name__)
        stop_if_cancelled()  # as above; nobody waits for what would be done without it


def comparison_key(comparison: Comparison) -> str:
    """A digest of all that is compared."""
    return _digest(_compared(comparison))


def judgement_key(
    fingerprint: str, comparison: Comparison, options: JudgingOptions, rubric: Rubric | None
) -> str | None:
    """Where a judgement is kept; None when the same question may be answered differently.

    Sampling is not repeatable across batch compositions, so only judgements at
    temperature 0 are kept; of order escalate those that needed no votes.
    """
    if options.temperature > 0 or options.drafting is not None:
        return None
    asked = _compared(comparison) | {
        "rubric": rubric.text if rubric is not None else None,
        "depth": options.depth,
        "order": options.order,
        "band": options.band if options.order in ("adaptive", "escalate") else None,
        "escalation": asdict(options.escalation) if options.order == "escalate" else None,
        "require_consistent": options.require_consistent,
    }
    return f"{fingerprint}:{_digest(asked)}"


def flight_key(key: str, options: JudgingOptions) -> str:
    """Under what a judgement is made once for all who ask meanwhile; `key` is where it is kept.

    Votes may be sampled under order escalate: those who want others must not be given the same.
    """
    return f"{key}:{options.seed}" if options.order == "escalate" else key


def _compared(comparison: Comparison) -> dict[str, Any]:
    return {
        "question": comparison.question,
        "responses": comparison.responses,
        "images": [image.identity for image in comparison.images],
    }


def _digest(asked: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
