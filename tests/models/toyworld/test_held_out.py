"""What training never shows, asked of every kind of case."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from models.toyworld import (
    FAMILIES,
    STRATA,
    CaseOptions,
    Stratum,
    ToyCase,
    make_case,
    teacher_rubric,
)
from models.toyworld.scene import COLOURS, DIGITS, HELD_OUT, SHAPES

Oracle = Any  # the one of conftest.py
Kinds = set[tuple[str, str]]

every_kind = pytest.mark.parametrize(
    ("stratum", "family"),
    [(s, f) for s in STRATA for f in FAMILIES if (s, f) != ("rubric", "description")],
)
SETTLED_BY_TWO_CLAIMS = ("colour", "digit", "description")
"""Their questions name no combination; in the text stratum nothing claims the other half."""


def cases(options: CaseOptions | None, number: int, seed: int = 0) -> Iterator[ToyCase]:
    rng = random.Random(seed)
    return (make_case(rng, options) for _ in range(number))


def claimed(oracle: Oracle, case: ToyCase, response: str) -> Kinds:
    """Held-out combinations that a response claims in answer to the questions."""
    asked = oracle.question(case.question).asked
    said = oracle.heard(response, [one.family for one in asked])
    claims = zip(said.claims, asked, strict=True) if said else ()
    return {kind for claim, one in claims for kind in oracle.kept_from_training(claim, [one])}


def said_or_shown(oracle: Oracle, case: ToyCase) -> Kinds:
    """Held-out combinations anywhere in a case."""
    found = {(o.shape, o.colour) for o in case.scene.objects} & HELD_OUT
    texts = (case.question, case.evaluation, case.rubric.text, *case.responses)
    found.update(*(oracle.kept_from_training(text) for text in texts))
    found.update(*(claimed(oracle, case, response) for response in case.responses))
    return found


def test_the_oracle_notices_a_combination_however_it_is_said(oracle: Oracle):
    assert oracle.kept_from_training("There is a small blue circle.") == {("circle", "blue")}
    assert oracle.kept_from_training("How many red triangles are there?") == {("triangle", "red")}
    assert oracle.kept_from_training("large red digit 0, large red star") == {("0", "red")}
    assert oracle.kept_from_training("circle colour: blue\nred digit: 6") == {
        ("circle", "blue"),
        ("6", "red"),
    }
    (colour,) = oracle.question("What colour is the star?").asked
    (digit,) = oracle.question("Read the green digit.").asked
    assert oracle.kept_from_training("purple", [colour]) == {("star", "purple")}
    assert oracle.kept_from_training("7", [digit]) == {("7", "green")}
    assert oracle.kept_from_training("red", [colour]) == set()


def test_each_shape_and_each_digit_misses_one_colour_and_each_colour_is_missed():
    assert sorted(shape for shape, _ in HELD_OUT) == sorted((*SHAPES, *DIGITS))
    assert {colour for _, colour in HELD_OUT} == set(COLOURS)


def test_no_training_case_shows_or_says_a_combination_kept_from_training(oracle: Oracle):
    shown: Kinds = set()
    for case in cases(None, 2500):
        assert said_or_shown(oracle, case) == set()
        assert not any(oracle.question(case.question).kept)
        shown.update((o.shape, o.colour) for o in case.scene.objects)
    every = {(thing, colour) for thing in (*SHAPES, *DIGITS) for colour in COLOURS}
    assert shown == every - HELD_OUT


@every_kind
def test_no_version_of_a_training_case_says_what_is_kept_from_training(
    oracle: Oracle, stratum: Stratum, family: str
):
    rng = random.Random(6)
    for case in cases(CaseOptions(stratum, family), 50, seed=7):
        versions = [
            case,
            case.with_rubric(teacher_rubric(case, rng, vague=0.3, misweighted=0.3)),
            case.with_rubric_varied(rng, stated=False),
        ]
        if stratum == "rubric":
            turned = case.with_priority_reversed()
            versions += [turned, turned.with_rubric_varied(rng, stated=rng.random() < 0.5)]
        for version in versions:
            assert said_or_shown(oracle, version) == set()
            assert not any(oracle.question(version.question).kept)


@every_kind
def test_every_question_of_a_held_out_case_is_about_a_combination_kept_from_training(
    oracle: Oracle, stratum: Stratum, family: str
):
    for case in cases(CaseOptions(stratum, family, held_out=True), 50):
        asked = oracle.question(case.question).asked
        for place, one in enumerate(asked):
            if stratum == "text" and one.family in SETTLED_BY_TWO_CLAIMS:
                continue
            about = oracle.kept_from_training(" ".join(value for _, value in one.names))
            for response in case.responses:
                if said := oracle.heard(response, [question.family for question in asked]):
                    about |= oracle.kept_from_training(said.claims[place], [one])
            assert about


def test_about_half_of_the_held_out_cases_are_put_in_words_kept_from_training(oracle: Oracle):
    asked_in: set[tuple[str, bool]] = set()
    number, new_words = 1200, 0
    for case in cases(CaseOptions(held_out=True), number):
        question = oracle.question(case.question)
        assert len(set(question.kept)) == 1, "a case mixes old and new words"
        new_words += question.kept[0]
        asked_in.update((one.family, question.kept[0]) for one in question.asked)
    assert new_words / number == pytest.approx(0.5, abs=0.06)
    assert asked_in == {(family, kept) for family in oracle.families for kept in (False, True)}
