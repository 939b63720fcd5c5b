from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from service.errors import InvalidRequest, RateLimited
from service.keys import ApiKey
from service.metrics import Metrics
from service.quotas import Quotas
from service.settings import CacheSettings
from service.store import Store

pytestmark = pytest.mark.anyio

KEY = ApiKey(name="few", tenant="few", sha256="0" * 64, per_minute=10)
NOBODY_LISTENS = "redis://127.0.0.1:1"


class Clock:
    now = 60_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["with Redis", "without"])
async def store(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Store]:
    url = redis_url if request.param == "with Redis" else NOBODY_LISTENS
    opened = Store(url, CacheSettings(), Metrics(CollectorRegistry()))
    yield opened
    await opened.close()


async def test_a_minutes_judgements_are_counted_and_the_next_minutes_anew(
    store: Store, clock: Clock
):
    quotas = Quotas(store, clock)
    for _ in range(2):
        await quotas.spend(KEY, 6)
        await quotas.spend(KEY, 4)
        clock.now += 15
        with pytest.raises(RateLimited) as refused:
            await quotas.spend(KEY)
        assert refused.value.retry_after_s == 45
        clock.now += 45


async def test_what_is_refused_is_not_spent(store: Store, clock: Clock):
    quotas = Quotas(store, clock)
    await quotas.spend(KEY, 6)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await quotas.spend(KEY, 5)
    await quotas.spend(KEY, 4)


async def test_what_is_refused_in_one_gateway_is_left_for_another(redis_url: str, clock: Clock):
    store = Store(redis_url, CacheSettings(), Metrics(CollectorRegistry()))
    one, other = Quotas(store, clock), Quotas(store, clock)
    await one.spend(KEY, 6)
    for _ in range(3):
        with pytest.raises(RateLimited):
            await other.spend(KEY, 5)
    await one.spend(KEY, 2)
    await other.spend(KEY, 2)
    for quotas in (one, other):
        with pytest.raises(RateLimited):
            await quotas.spend(KEY)
    await store.close()


async def test_the_first_of_many_has_been_counted_before(store: Store, clock: Clock):
    quotas = Quotas(store, clock)
    await quotas.spend(KEY)
    await quotas.spend_rest(KEY, 10)
    with pytest.raises(RateLimited):
        await quotas.spend(KEY)


async def test_more_than_a_minute_has_is_refused_for_good_and_spends_nothing(
    store: Store, clock: Clock
):
    quotas = Quotas(store, clock)
    with pytest.raises(InvalidRequest, match="asks for 11 judgements at once"):
        await quotas.spend_rest(KEY, 11)
    await quotas.spend(KEY, 10)


@pytest.mark.parametrize("key", [None, KEY.model_copy(update={"per_minute": None})])
async def test_who_has_no_quota_may_ask_for_as_much_as_he_likes(
    key: ApiKey | None, store: Store, clock: Clock
):
    quotas = Quotas(store, clock)
    await quotas.spend(key)
    await quotas.spend_rest(key, 10_000)


async def test_a_request_for_nothing_spends_no_more_than_its_first(store: Store, clock: Clock):
    quotas = Quotas(store, clock)
    await quotas.spend(KEY, 10)
    await quotas.spend_rest(KEY, 0)
