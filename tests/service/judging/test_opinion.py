from __future__ import annotations

import pytest

from service.judging import Opinion, Voice, agreement, panel_verdict

FIRST, SECOND = Opinion.of(0.9), Opinion.of(0.2)
SAID = Opinion.prefers(2)
SHY = Opinion.abstains("unreadable")
LATE = Opinion.missing("timeout", 3.0)


def voices(*opinions: Opinion, weights: tuple[float, ...] = ()) -> list[Voice]:
    weights = weights or (1.0,) * len(opinions)
    return [Voice(f"n{i}", w, o) for i, (w, o) in enumerate(zip(weights, opinions, strict=True))]


def test_an_opinion_prefers_the_first_from_one_half_on():
    assert [Opinion.of(p).preferred for p in (0.0, 0.49, 0.5, 1.0)] == [2, 2, 1, 1]


@pytest.mark.parametrize("opinion", [FIRST, SECOND, SAID, SHY])
def test_the_ways_to_make_one_make_sense(opinion: Opinion):
    opinion.check()


def test_one_that_only_says_which_votes_with_certainty():
    assert [Opinion.prefers(1).vote, SAID.vote, FIRST.vote, SHY.vote] == [1.0, 0.0, 0.9, None]


def test_agreement_is_the_share_of_opinions_and_counts_nothing_that_is_missing():
    said = voices(FIRST, FIRST, SAID, SHY, LATE)
    assert agreement(said, 1) == pytest.approx(2 / 3)
    assert agreement(said, 2) == pytest.approx(1 / 3)
    assert agreement(said) == pytest.approx(2 / 3)


@pytest.mark.parametrize("said", [[], voices(SHY, LATE)])
def test_without_opinions_there_is_no_agreement_and_no_panel(said: list[Voice]):
    assert agreement(said, 1) is None
    assert agreement(said) is None
    assert panel_verdict(said) is None


def test_an_abstaining_judge_is_agreed_with_by_nobody():
    assert agreement(voices(FIRST), None) is None


def test_a_panel_is_the_weighted_mean_with_the_judge():
    found = panel_verdict(voices(SECOND, SAID, LATE, weights=(2, 1, 50)), 0.9)
    assert found is not None
    assert found.probability == pytest.approx((2 * 0.2 + 0 + 0.9) / 4)
    assert (found.preferred, found.agreement) == (2, 0.75)


def test_a_panel_without_the_judges_verdict_is_the_evaluators():
    found = panel_verdict(voices(FIRST, SECOND))
    assert found is not None
    assert found.probability == pytest.approx(0.55)
    assert (found.preferred, found.agreement) == (1, 0.5)


def test_weight_nought_is_heard_and_not_counted():
    assert panel_verdict(voices(SECOND, weights=(0,))) is None
    found = panel_verdict(voices(SECOND, weights=(0,)), 0.9)
    assert found is not None
    assert (found.probability, found.agreement) == (0.9, 1.0)
