from __future__ import annotations

import random
import re

from models.toyworld import CaseOptions, make_case
from models.toyworld.looking import random_facts
from models.toyworld.phrasing import NAMES
from models.toyworld.scene import COLOURS, COLUMNS, DIGITS, ROWS, SHAPES, SIZES
from models.toyworld.words import LABEL_WORDS


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_everything_that_can_be_seen_is_a_label_word():
    assert {*COLOURS, *SHAPES, *SIZES, *DIGITS, *ROWS, *COLUMNS} <= LABEL_WORDS


def test_label_words_are_single_words_without_spaces():
    assert all(re.fullmatch(r"\w+", word) for word in LABEL_WORDS)


def test_every_claim_and_every_finding_of_an_evaluation_carries_label_words():
    rng = random.Random(0)
    for _ in range(600):
        case = make_case(rng)
        for version in (case, case.with_rubric_varied(rng, stated=False)):
            for line in version.evaluation.split("\n"):
                name, _, found = line.partition(": ")
                assert name in NAMES or words(found) & LABEL_WORDS, line
        for finding in (*case.findings[0], *case.findings[1]):
            assert words(finding) & LABEL_WORDS, finding


def test_what_comes_first_is_said_in_a_label_word():
    rng = random.Random(3)
    for _ in range(300):
        first, _, _ = make_case(rng).evaluation.partition("\n")
        assert words(first) - {"first"} <= LABEL_WORDS


def test_a_response_beside_the_point_is_found_in_label_words():
    rng = random.Random(2)
    cases = [make_case(rng, CaseOptions("text")) for _ in range(60)]
    lines = [line for case in cases for line in case.evaluation.split("\n") if "not asked" in line]
    assert lines
    for line in lines:
        _, _, found = line.partition(": ")
        assert words(found) == {"not", "asked"} <= LABEL_WORDS


def test_whatever_is_seen_in_a_fact_carries_a_label_word():
    rng = random.Random(1)
    for _ in range(200):
        scene = make_case(rng).scene
        for fact in random_facts(scene, rng, 12):
            for seen in fact.pieces[1::2]:
                assert words(seen) & LABEL_WORDS, fact


def test_words_that_only_look_for_something_are_not_label_words():
    looked_for = {"a", "an", "the", "row", "column", "all", "says", "first", "I", "is", "There"}
    looked_for |= {*NAMES}
    assert not looked_for & LABEL_WORDS
