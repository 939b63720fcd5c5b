from __future__ import annotations

import re

import pytest

from service import errors
from service.errors import ServiceError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not ServiceError
]


def test_the_codes_are_the_ones_that_clients_know():
    assert {kind.code for kind in KINDS} == {
        "invalid_request",
        "image_rejected",
        "context_exceeded",
        "payload_too_large",
        "unauthenticated",
        "rate_limited",
        "not_found",
        "overloaded",
        "draining",
        "engine_unavailable",
        "store_unavailable",
        "deadline_exceeded",
        "abstained",
        "release_changed",
    }


def test_no_two_errors_share_a_code():
    assert len({kind.code for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_stands_in_the_tree_that_readers_see_first(kind: type[ServiceError]):
    assert re.search(rf"[├└]── {kind.__name__} ", errors.__doc__ or "")


def test_only_errors_that_pass_say_when_to_come_back():
    assert {kind.code: kind.retry_after_s for kind in KINDS if kind.retry_after_s} == {
        "rate_limited": 1,
        "overloaded": 1,
        "draining": 5,
        "engine_unavailable": 5,
        "store_unavailable": 5,
    }


def test_an_error_may_name_its_own_time_to_come_back():
    assert errors.Overloaded("full", retry_after_s=7).retry_after_s == 7
    assert errors.Overloaded("full").retry_after_s == 1
    assert errors.Overloaded("full").detail == "full"
