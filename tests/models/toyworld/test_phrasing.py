from __future__ import annotations

import random
import re
from string import Formatter

import pytest

from models.toyworld.aspects import ASPECTS, Planner
from models.toyworld.phrasing import (
    INSTRUCTIONS,
    NEEDLESS,
    PRIORITIES,
    QUESTIONS,
    STATEMENTS,
    TOPICS,
    Phrasings,
)
from models.toyworld.scene import COLOURS, SHAPES

ALL = {**QUESTIONS, **INSTRUCTIONS, "priorities": PRIORITIES}
every_entry = pytest.mark.parametrize("name", ALL)


def holes(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def words(template: str) -> set[str]:
    return set(re.findall(r"\w+", re.sub(r"\{\w*\}", "", template).lower()))


def test_every_family_has_questions_statements_and_a_topic():
    assert set(QUESTIONS) == set(STATEMENTS) == set(ASPECTS)
    assert set(TOPICS) == {*ASPECTS, "instruction"}
    assert len(set(TOPICS.values())) == len(TOPICS)


@every_entry
def test_trained_phrasings_and_those_kept_from_training_are_different(name: str):
    phrasings = ALL[name]
    assert phrasings.trained
    assert phrasings.held_out
    assert len({*phrasings.trained, *phrasings.held_out}) == (
        len(phrasings.trained) + len(phrasings.held_out)
    )


def test_phrasings_kept_from_training_have_no_word_that_training_lacks():
    trained: set[str] = set()
    for phrasings in ALL.values():
        trained.update(*(words(template) for template in phrasings.trained))
    trained.update(*(words(t) for templates in STATEMENTS.values() for t in templates))
    for phrasings in ALL.values():
        for template in phrasings.held_out:
            assert words(template) <= trained


@pytest.mark.parametrize("family", ASPECTS)
def test_every_question_is_filled_by_the_names_of_its_aspect(family: str):
    names = Planner(random.Random(0)).plan(family).names
    for template in (*QUESTIONS[family].trained, *QUESTIONS[family].held_out):
        assert holes(template) == set(names)


def test_every_statement_has_one_hole_for_its_claim():
    for templates in STATEMENTS.values():
        for template in templates:
            assert holes(template) == {""}
            assert template.format("claim").count("claim") == 1


def test_every_priority_names_what_is_first():
    for template in (*PRIORITIES.trained, *PRIORITIES.held_out):
        assert "first" in holes(template) <= {"first", "second"}


def test_no_two_questions_are_the_same_in_any_words():
    filled: list[str] = []
    names = {"kind": "red star", "shape": "star", "colour": "red", "one": "red star",
             "two": "black star", "before": "above", "after": "below"}  # fmt: skip
    for phrasings in QUESTIONS.values():
        filled += [t.format(**names) for t in (*phrasings.trained, *phrasings.held_out)]
    assert len(set(filled)) == len(filled)


def test_needless_sentences_say_nothing_about_the_image():
    for sentence in NEEDLESS:
        assert not words(sentence) & {*COLOURS, *SHAPES, *map(str, range(10)), "yes", "no"}


def test_a_phrasing_is_picked_from_the_side_asked_for_and_every_one_comes_up():
    phrasings = Phrasings(("a", "b", "c"), ("d", "e"))
    rng = random.Random(0)
    assert {phrasings.pick(rng, held_out=False) for _ in range(100)} == {"a", "b", "c"}
    assert {phrasings.pick(rng, held_out=True) for _ in range(100)} == {"d", "e"}
