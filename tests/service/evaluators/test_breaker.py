from __future__ import annotations

import pytest

from service.evaluators.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=3, open_s=10, clock=clock)


def fails(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        admitted = breaker.admit()
        assert admitted is not None
        breaker.failed(admitted)


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker):
    fails(breaker, 2)
    assert breaker.state == "closed"
    fails(breaker)
    assert breaker.state == "open"
    assert breaker.admit() is None


def test_it_tells_for_how_long_nobody_gets_through(breaker: Breaker, clock: Clock):
    fails(breaker, 2)
    assert breaker.left_alone_s == 0
    fails(breaker)
    clock.now = 4.0
    assert breaker.left_alone_s == pytest.approx(6)
    clock.now = 40.0
    assert breaker.left_alone_s == 0


def test_a_success_between_them_starts_the_count_again(breaker: Breaker):
    fails(breaker, 2)
    admitted = breaker.admit()
    assert admitted is not None
    breaker.succeeded(admitted)
    fails(breaker, 2)
    assert breaker.state == "closed"


def test_after_a_while_one_call_may_try(breaker: Breaker, clock: Clock):
    fails(breaker, 3)
    clock.now = 9.9
    assert breaker.admit() is None
    clock.now = 10.0
    assert breaker.state == "half_open"
    trial = breaker.admit()
    assert trial is not None
    assert breaker.admit() is None
    breaker.succeeded(trial)
    assert breaker.state == "closed"
    fails(breaker, 2)
    assert breaker.state == "closed"


def test_a_failed_trial_opens_it_again_for_as_long(breaker: Breaker, clock: Clock):
    fails(breaker, 3)
    clock.now = 10.0
    fails(breaker)
    assert breaker.state == "open"
    clock.now = 19.9
    assert breaker.state == "open"
    clock.now = 20.0
    assert breaker.state == "half_open"


def test_a_trial_that_its_caller_gave_up_lets_the_next_one_try(breaker: Breaker, clock: Clock):
    fails(breaker, 3)
    clock.now = 10.0
    trial = breaker.admit()
    assert trial is not None
    breaker.given_up(trial)
    assert breaker.state == "half_open"
    assert breaker.admit() is not None


def test_calls_from_before_it_opened_decide_nothing(breaker: Breaker, clock: Clock):
    late = [breaker.admit() for _ in range(3)]
    fails(breaker, 3)
    clock.now = 5.0
    breaker.failed(late[0])
    clock.now = 10.0
    assert breaker.state == "half_open"
    trial = breaker.admit()
    breaker.given_up(late[1])
    assert breaker.admit() is None
    breaker.succeeded(late[2])
    assert breaker.state == "half_open"
    breaker.succeeded(trial)
    assert breaker.state == "closed"
