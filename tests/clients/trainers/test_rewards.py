from __future__ import annotations

import asyncio
import pickle
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from proxy_grm_client import (
    DemoRelease,
    NotFound,
    ReleaseChanged,
    Unauthenticated,
    UnexpectedAnswer,
)
from proxy_grm_client.trainers.rewards import Reward, Rewards
from proxy_grm_client.trainers.rollouts import Rollout


def asked(*responses: str, question: str = "How many?", **more) -> list[Rollout]:
    return [Rollout(question, response, **more) for response in responses]


def values(rewards: Sequence[Reward]) -> list[float | None]:
    return [None if one.value is None else round(one.value, 6) for one in rewards]


def test_the_rollouts_of_a_prompt_are_ranked_together_in_one_call(opened, judge):
    rewards = opened(Rewards).of(asked("1", "3", "2"))
    assert values(rewards) == [-0.8, 0.8, 0.0]
    assert {one.rubric for one in rewards} == {"1. Truth (100%)"}
    assert [(path, body["responses"]) for path, body in judge.bodies] == [
        ("/rank", ["1", "3", "2"])
    ]


def test_each_prompt_has_its_own_ranking_wherever_its_rollouts_stand(opened, judge):
    mixed = [
        *asked("1", "2"),
        *asked("9", question="Whose?", images=[b"x"]),
        *asked("3"),
        *asked("8", question="Whose?", images=[b"x"]),
        *asked("7", "6", question="Whose?", images=[b"y"]),
    ]
    rewards = opened(Rewards).of(mixed)
    assert values(rewards) == [-0.8, 0.0, 0.8, 0.8, -0.8, 0.8, -0.8]
    assert sorted(body["responses"] for _, body in judge.bodies) == [
        ["1", "2", "3"],
        ["7", "6"],
        ["9", "8"],
    ]


def test_against_references_each_is_scored_on_its_own(opened, judge):
    rewards = opened(Rewards, mode="reference", options={"order": "both"})
    found = rewards.of([*asked("3", "1", reference="2"), *asked("5")])
    assert values(found) == [0.8, -0.8, None]
    assert found[2].reason == "no_reference"
    assert {path for path, _ in judge.bodies} == {"/score"}
    assert sorted(body["responses"] for _, body in judge.bodies) == [["1", "2"], ["3", "2"]]
    assert all(body["order"] == "both" for _, body in judge.bodies)


def test_nothing_is_asked_about_nothing(opened, judge):
    assert opened(Rewards).of([]) == []
    assert judge.bodies == []


def test_who_says_nothing_abstains_and_the_others_are_ranked(opened, judge):
    found = opened(Rewards).of(asked("1", " ", "2", ""))
    assert values(found) == [-0.8, None, 0.8, None]
    assert [one.reason for one in found] == [None, "blank", None, "blank"]


def test_who_has_nobody_to_be_compared_with_abstains(opened, judge):
    assert [one.reason for one in opened(Rewards).of(asked("1", " "))] == ["alone", "blank"]
    assert judge.bodies == []


def test_a_response_that_could_never_be_read_abstains_and_the_others_do_not(opened):
    found = opened(Rewards).of(asked("1", "mumble", "2"))
    assert values(found)[1] is None
    assert found[1].reason == "unreadable"
    assert found[0].value is not None
    assert found[0].value < 0 < (found[2].value or 0)


def test_an_abstention_of_the_judge_is_one_of_every_rollout(opened):
    found = opened(Rewards).of(asked("1", "2", question="mumble"))
    assert [(one.value, one.reason) for one in found] == [(None, "unreadable")] * 2
    [scored] = opened(Rewards, mode="reference").of(asked("mumble", reference="2"))
    assert (scored.value, scored.reason) == (None, "unreadable")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "engine_unavailable"),
        (504, "deadline_exceeded"),
        (422, "context_exceeded"),
        (422, "invalid_request"),
    ],
)
def test_an_outage_and_a_rollout_that_cannot_be_judged_are_abstentions_and_logged(
    status, code, opened, judge, caplog
):
    judge.problem = status, code
    found = opened(Rewards, timeout_s=0.3).of(asked("1", "2"))
    assert [(one.value, one.reason) for one in found] == [(None, code)] * 2
    assert code in caplog.text


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", Unauthenticated),
        (404, "not_found", NotFound),
        (409, "release_changed", ReleaseChanged),
        (500, "never heard", UnexpectedAnswer),
    ],
)
def test_an_error_of_the_set_up_ends_the_run(status, code, kind, opened, judge):
    judge.problem = status, code
    with pytest.raises(kind):
        opened(Rewards).of(asked("1", "2"))


@pytest.mark.parametrize("mode", ["group", "reference"])
def test_a_demonstration_is_refused_unless_it_is_meant(mode, opened, judge):
    judge.purpose = "demo"
    with pytest.raises(DemoRelease, match="allow_demo=True"):
        opened(Rewards, mode=mode).of(asked("1", "2", reference="0"))
    meant = opened(Rewards, mode=mode, allow_demo=True).of(asked("1", "2", reference="0"))
    assert None not in values(meant)


def test_a_cohort_larger_than_a_ranking_is_ranked_in_even_parts(opened, judge):
    found = opened(Rewards).of(asked(*(str(number) for number in range(65))))
    assert sorted(len(body["responses"]) for _, body in judge.bodies) == [32, 33]
    assert None not in values(found)


def test_loops_may_come_and_go(opened, judge):
    rewards = opened(Rewards)
    for _ in range(3):
        assert values(asyncio.run(rewards.of_async(asked("1", "2")))) == [-0.8, 0.8]
    assert values(rewards.of(asked("1", "2"))) == [-0.8, 0.8]


def test_it_can_be_sent_to_another_process_before_it_is_used():
    assert pickle.loads(pickle.dumps(Rewards("http://grm"))).url == "http://grm"


def test_it_opens_again_after_it_was_closed(opened):
    rewards = opened(Rewards)
    rewards.close()
    assert values(rewards.of(asked("1", "2"))) == [-0.8, 0.8]
    rewards.close()
    assert values(rewards.of(asked("1", "2"))) == [-0.8, 0.8]


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"ordr": "both"}, TypeError, "no option is called ordr"),
        ({"temperature": 0.5}, TypeError, "no option is called temperature"),
        ({"order": "bth"}, ValueError, "order='bth': one of given, both, adaptive"),
        ({"order": "escalate"}, ValueError, "order='escalate'"),
        ({"depth": "x"}, ValueError, "depth='x': one of full, verdict"),
    ],
)
def test_options_that_no_judgement_can_have_are_told_before_a_run(options, kind, said):
    with pytest.raises(kind, match=said):
        Rewards(options=options)


def test_a_mode_that_does_not_exist_is_told():
    with pytest.raises(ValueError, match="mode='grp': one of group, reference"):
        Rewards(mode="grp")  # pyright: ignore[reportArgumentType]


def test_many_threads_share_one_loop(opened, judge):
    rewards = opened(Rewards)
    before = threading.active_count()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(lambda _: rewards.of(asked("1", "2")), range(64)))
    finally:
        sys.setswitchinterval(interval)
    assert [values(one) for one in found] == [[-0.8, 0.8]] * 64
    assert threading.active_count() <= before + 1
