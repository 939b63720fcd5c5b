from __future__ import annotations

import re

import httpx
import proxy_grm_client
import pytest
from proxy_grm_client import errors
from proxy_grm_client.errors import BY_CODE, ProxyGrmError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ProxyGrmError) and kind is not ProxyGrmError
]
LOCAL = {"service_unreachable", "unexpected_answer", "demo_release"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_exported_and_stands_in_the_tree(kind: type[ProxyGrmError]):
    assert getattr(proxy_grm_client, kind.__name__) is kind
    assert kind.__name__ in proxy_grm_client.__all__
    assert re.search(rf"[├└]── {kind.__name__} ", errors.__doc__ or "")


def test_every_code_that_a_service_may_send_has_its_class():
    assert {kind.code: kind for kind in KINDS if kind.code not in LOCAL} == BY_CODE


def test_what_is_retried_is_what_passes():
    assert {kind.code for kind in KINDS if kind.worth_retrying} == {
        "service_unreachable",
        "rate_limited",
        "overloaded",
        "draining",
        "engine_unavailable",
        "store_unavailable",
    }


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_a_code_is_raised_as_its_class_whatever_its_status(code: str, ask, problem):
    for status in (400, 422, 500):
        with pytest.raises(BY_CODE[code]) as raised:
            ask(lambda _, status=status: problem(status, code), timeout_s=0.01)
        assert raised.value.code == code


def test_everything_raised_is_one_family(ask):
    def cut(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with pytest.raises(ProxyGrmError):
        ask(cut, timeout_s=0.01)
    assert all(issubclass(kind, ProxyGrmError) for kind in KINDS)


def test_every_exported_name_exists():
    for name in proxy_grm_client.__all__:
        assert getattr(proxy_grm_client, name)
    assert sorted(proxy_grm_client.__all__) == proxy_grm_client.__all__
