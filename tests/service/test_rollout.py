from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import CollectorRegistry

from models.release import Release, load_release
from service.errors import NotFound, ReleaseChanged
from service.metrics import Metrics
from service.rollout import Rollout, Wish
from service.settings import CacheSettings
from service.store import Store
from service.tenancy import acting_for

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    opened = Store(redis_url, CacheSettings(), Metrics(CollectorRegistry()))
    yield opened
    await opened.close()


@pytest.fixture
def old(plain_release: str) -> Release:
    return load_release(plain_release)


@pytest.fixture
def new(bare_release: str) -> Release:
    return load_release(bare_release)


@pytest.fixture
def rollout(old: Release, new: Release, store: Store) -> Callable[[float], Rollout]:
    return lambda percent: Rollout((old, new), percent, store)


async def shares(rollout: Rollout, names: list[str]) -> set[str]:
    """Of these questions, those that the new release gets."""
    chosen = await asyncio.gather(*(rollout.choose(Wish(name)) for name in names))
    return {name for name, one in zip(names, chosen, strict=True) if one.config.name == "small"}


async def test_the_new_release_gets_its_share_of_the_questions(rollout):
    names = [f"question {n}" for n in range(2000)]
    assert await shares(rollout(0), names) == set()
    assert await shares(rollout(100), names) == set(names)
    assert 420 <= len(await shares(rollout(25), names)) <= 580


async def test_a_larger_share_takes_none_back(rollout):
    names = [f"question {n}" for n in range(500)]
    assert await shares(rollout(10), names) < await shares(rollout(40), names)


async def test_the_same_question_goes_to_the_same_release(rollout):
    for percent in (10, 50):
        for name in ("a", "b", "\ud800"):
            assert len(await shares(rollout(percent), [name] * 10)) in (0, 1)
            chosen = {id(await rollout(percent).choose(Wish(name))) for _ in range(10)}
            assert len(chosen) == 1


async def test_a_release_is_called_by_name_or_fingerprint(rollout, old, new):
    for release in (old, new):
        for wanted in (release.config.name, release.fingerprint):
            for percent in (0, 100):
                assert await rollout(percent).choose(Wish("?", release=wanted)) is release
    with pytest.raises(NotFound):
        await rollout(0).choose(Wish("?", release="large"))
    with pytest.raises(ReleaseChanged):
        await rollout(0).choose(Wish("?", release="0" * 32))


async def test_a_run_stays_with_the_release_that_it_began_with(rollout, old, new):
    assert await rollout(0).choose(Wish("a", "run")) is old
    assert await rollout(100).choose(Wish("b", "run")) is old
    assert await rollout(100).choose(Wish("b", "another run")) is new
    with acting_for("another tenant"):
        assert await rollout(100).choose(Wish("b", "run")) is new


async def test_a_run_ends_where_its_release_is_served_no_more(rollout, old, new, store):
    assert await rollout(0).choose(Wish("a", "run")) is old
    replaced = Rollout((new,), 0, store)
    with pytest.raises(ReleaseChanged) as refused:
        await replaced.choose(Wish("a", "run"))
    assert old.fingerprint in refused.value.detail
    assert await replaced.choose(Wish("a")) is new


async def test_a_run_that_may_change_goes_on_with_the_new_release_from_then_on(
    rollout, old, new, store
):
    assert await rollout(0).choose(Wish("a", "run")) is old
    assert await Rollout((new,), 0, store).choose(Wish("a", "run", may_change=True)) is new
    assert await Rollout((new,), 0, store).choose(Wish("a", "run")) is new
    assert await rollout(0).choose(Wish("a", "run")) is new


async def test_a_run_that_asks_for_another_release_than_it_began_with_is_refused(rollout, new):
    await rollout(0).choose(Wish("a", "run"))
    with pytest.raises(ReleaseChanged):
        await rollout(0).choose(Wish("a", "run", release="small"))
    assert await rollout(0).choose(Wish("a", "run", "small", may_change=True)) is new


async def test_without_a_store_runs_are_judged_all_the_same(old, new):
    gone = Store("redis://127.0.0.1:1", CacheSettings(), Metrics(CollectorRegistry()))
    assert await Rollout((old, new), 0, gone).choose(Wish("a", "run")) is old
    assert await Rollout((old, new), 100, gone).choose(Wish("a", "run")) is new
    await gone.close()


async def test_the_shares_are_what_the_settings_say(rollout, old, new, store):
    assert (rollout(30).percent(old), rollout(30).percent(new)) == (70, 30)
    assert Rollout((old,), 30, store).percent(old) == 100
