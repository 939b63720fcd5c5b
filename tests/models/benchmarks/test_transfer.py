from __future__ import annotations

import random

import pytest

from models.benchmarks.transfer import Tried, shuffled, summary
from models.toyworld import CaseOptions, make_case


def cases(**numbers):
    """So many of each stratum, mixed."""
    rng = random.Random(0)
    made = [
        make_case(rng, CaseOptions(stratum))
        for stratum, number in numbers.items()
        for _ in range(number)
    ]
    rng.shuffle(made)
    return made


def test_nobody_keeps_a_rubric_and_each_is_used_once():
    some = cases(image=9, rubric=5, text=2)
    rubrics = [f"rubric {n}" for n in range(len(some))]
    moved = shuffled(some, rubrics)
    assert sorted(moved) == sorted(rubrics)
    assert all(own != other for own, other in zip(rubrics, moved, strict=True))


def test_a_rubric_goes_to_a_case_of_its_own_stratum():
    some = cases(image=9, rubric=5, text=2)
    moved = shuffled(some, [case.stratum for case in some])
    assert moved == [case.stratum for case in some]


def tried(case, own, anothers):
    """Whether each rubric led to the label; None where there was no opinion."""
    said = [None if right is None else case.label if right else 3 - case.label
            for right in (own, anothers)]  # fmt: skip
    return Tried(case, *said)


def test_transfer_is_what_ones_own_rubric_adds():
    some = cases(image=4, rubric=4)
    image = [c for c in some if c.stratum == "image"]
    rubric = [c for c in some if c.stratum == "rubric"]
    found = summary(
        [
            tried(c, True, right)
            for c, right in zip(rubric, (True, False, False, False), strict=True)
        ]
        + [tried(c, True, True) for c in image]
    )
    assert found["n"] == 8
    assert found["own_rubric"] == 1.0
    assert found["anothers_rubric"] == 0.625
    assert found["transfer"] == 0.375
    assert found["rubric_decided"]["transfer"] == 0.75
    assert found["image_decided"]["transfer"] == 0.0
    assert "text_decided" not in found
    low, high = found["transfer_interval_95"]
    assert low < 0.375 < high


def test_no_opinion_is_not_right_and_is_counted():
    some = cases(rubric=4)
    answers = [(None, True), (True, None), (True, None), (False, True)]
    found = summary([tried(c, *said) for c, said in zip(some, answers, strict=True)])
    assert found["own_rubric"] == found["anothers_rubric"] == 0.5
    assert (found["abstained"], found["abstained_anothers"]) == (0.25, 0.5)


@pytest.mark.parametrize("right", [True, False])
def test_where_all_agree_the_interval_is_a_point(right):
    found = summary([tried(c, right, right) for c in cases(rubric=3)])
    assert found["transfer"] == 0
    assert found["transfer_interval_95"] == [0, 0]
