from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import pytest
from proxy_grm_client import DemoRelease, NotFound
from proxy_grm_client.trainers.verl import (
    close,
    compute_score,
    compute_score_async,
    compute_score_batch,
)


@pytest.fixture(autouse=True)
def connections_given_back() -> Iterator[None]:
    yield
    close()


ASKED = {"question": "How many?", "reference": "There is one."}


def test_a_rollout_is_compared_with_its_reference(service_url: str):
    settings = {"url": service_url, "allow_demo": True}
    waited = compute_score("cats", "There are two.", None, ASKED, **settings)
    assert waited["abstained"] == 0.0
    assert -1 <= waited["score"] <= 1
    without = {"question": "How many?"}
    assert compute_score("cats", "There are two.", "There is one.", without, **settings) == waited
    awaited = compute_score_async("cats", "There are two.", "another", ASKED, **settings)
    assert asyncio.run(awaited) == waited
    assert inspect.iscoroutinefunction(compute_score_async)


def test_an_abstention_is_a_number_with_a_flag(service_url: str):
    settings = {"url": service_url, "allow_demo": True}
    asked = ASKED | {"question": "unreadable"}
    found = compute_score("cats", "Two.", None, asked, abstained_score=-0.5, **settings)
    assert found == {"score": -0.5, "abstained": 1.0}
    [alone] = compute_score_batch(["cats"], ["Two."], [None], [ASKED], **settings)
    assert alone == {"score": 0.0, "abstained": 1.0}


def test_a_batch_is_ranked_by_question(service_url: str):
    settings = {"url": service_url, "allow_demo": True, "depth": "verdict"}
    extra = [ASKED, ASKED, ASKED | {"question": "unreadable"}, ASKED, ASKED]
    texts = ["One.", "Two.", "Three.", "Four.", " "]
    found = compute_score_batch(["cats"] * 5, texts, [None] * 5, extra, **settings)
    assert [one["abstained"] for one in found] == [0, 0, 1, 0, 1]
    assert sum(one["score"] for one in found) == pytest.approx(0)
    against = compute_score_batch(
        ["cats"] * 5, texts, [None] * 5, extra, mode="reference", **settings
    )
    assert [one["abstained"] for one in against] == [0, 0, 1, 0, 1]


def test_what_verl_adds_is_left_out(service_url: str):
    settings = {"url": service_url, "allow_demo": True}
    added = {"reward_router_address": "x", "reward_model_tokenizer": object()}
    assert compute_score("cats", "Two.", None, ASKED, **settings, **added)["abstained"] == 0


def test_a_setting_that_nobody_knows_is_told(service_url: str):
    with pytest.raises(TypeError, match="ordre"):
        compute_score("cats", "Two.", None, ASKED, url=service_url, ordre="both")


def test_errors_of_the_set_up_are_raised(service_url: str):
    with pytest.raises(DemoRelease):
        compute_score("cats", "Two.", None, ASKED, url=service_url)
    with pytest.raises(ValueError, match="extra_info of each row needs the question"):
        compute_score("cats", "Two.", "One.", {}, url=service_url)


def test_a_rubric_may_be_a_table_and_the_client_has_settings_too(service_url: str):
    rubric = {"text": "1. Truth (100%): it is right."}
    settings = {"url": service_url, "allow_demo": True, "rubric": rubric, "api_key": "k"}
    assert compute_score("cats", "Two.", None, ASKED, **settings)["abstained"] == 0
    with pytest.raises(NotFound):
        compute_score("cats", "Two.", None, ASKED, url=service_url, release="no such release")
