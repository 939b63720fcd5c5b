from __future__ import annotations

import random

import pytest

from models.toyworld.phrasing import QUESTIONS, TOPICS
from models.toyworld.rankings import RankingCase, make_ranking_case
from models.toyworld.scene import Scene

CASES = [make_ranking_case(random.Random(n)) for n in range(40)]


def test_the_same_state_gives_the_same_case():
    assert make_ranking_case(random.Random(3)) == make_ranking_case(random.Random(3)) == CASES[3]
    assert len({case.question for case in CASES}) > 30


def test_sixteen_different_responses_four_of_each_level_in_any_order():
    for case in CASES:
        assert len(set(case.responses)) == 16
        assert sorted(case.levels) == sorted([0, 1, 2, 3] * 4)
        assert case.picture().size == case.picture().size != (0, 0)
    assert len({case.levels for case in CASES}) == len(CASES)


def test_the_weightier_matter_comes_before_the_other():
    """Level by level, the claims repeat as they should."""
    for case in CASES:
        halves = {level: set() for level in range(4)}
        for text, level in zip(case.responses, case.levels, strict=True):
            first, second = text.rstrip(".").split(". ")
            halves[level].add((first.split()[-1], second.split()[-1]))
        # What ends a sentence is its claim, or the end of "… is larger", which tells nothing.
        firsts = {level: {one for one, _ in found} - {"larger"} for level, found in halves.items()}
        assert firsts[3] == firsts[2]
        assert firsts[1] == firsts[0]


def test_the_question_names_what_matters_most():
    for case in CASES:
        assert sum(topic in case.question for topic in TOPICS.values()) >= 1
        assert any(
            case.question.startswith(template.split("{")[0])
            for phrasings in QUESTIONS.values()
            for template in phrasings.trained
        )


@pytest.mark.parametrize(
    ("ranking", "agreement"),
    [([0, 1, 2, 3], 1.0), ([1, 0, 2, 3], 1.0), ([3, 2, 1, 0], -1.0), ([0, 2, 1, 3], 0.6)],
)
def test_agreement_counts_the_pairs_whose_order_is_known(ranking, agreement):
    case = RankingCase(Scene(()), "?", ("a", "b", "c", "d"), (2, 2, 1, 0))
    assert case.agreement(ranking) == pytest.approx(agreement)
