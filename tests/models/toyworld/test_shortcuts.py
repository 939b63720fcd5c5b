"""Nobody who does not look does better than chance, however well they read."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.rubric import Rubric
from models.toyworld import FAMILIES, CaseOptions, Stratum, ToyCase, make_case

Oracle = Any  # the one of conftest.py
Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


def drawn(stratum: Stratum, number: int, family: str | None = None, seed: int = 0) -> list[ToyCase]:
    rng = random.Random(f"{seed}/{stratum}/{family}")
    return [make_case(rng, CaseOptions(stratum, family)) for _ in range(number)]


@pytest.fixture(scope="module")
def image_cases() -> list[ToyCase]:
    return drawn("image", 3000)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def features(case: ToyCase) -> Counter[str]:
    """What sets the first response apart: its words, alone and with those of the question and
    of the second response. Positive where it has them, negative where the second has."""
    one, two = (Counter(words(response)) for response in case.responses)
    mine, theirs = one - two, two - one
    found = Counter(mine)
    found.subtract(theirs)
    for said, sign in ((mine, 1), (theirs, -1)):
        for word, asked in itertools.product(said, set(words(case.question))):
            found[f"{word} {asked}"] += sign
    for word, rival in itertools.product(mine, theirs):
        found[f"{min(word, rival)}/{max(word, rival)}"] += 1 if word < rival else -1
    return found


@dataclass(frozen=True)
class Features:
    """A sparse matrix as parallel arrays: the case, the feature's number, and its value."""

    row: Whole
    column: Whole
    value: Floats
    rows: int
    columns: int

    def logits(self, weights: Floats) -> Floats:
        """One for each case."""
        return np.bincount(self.row, self.value * weights[self.column], self.rows).astype(float)

    def gradient(self, error: Floats) -> Floats:
        """One for each feature."""
        return np.bincount(self.column, self.value * error[self.row], self.columns).astype(float)


def table(cases: list[ToyCase]) -> Features:
    numbers: dict[str, int] = {}
    entries = [
        (row, numbers.setdefault(feature, len(numbers)), value)
        for row, case in enumerate(cases)
        for feature, value in features(case).items()
    ]
    row, column, value = (np.array(values) for values in zip(*entries, strict=True))
    value = value / np.sqrt(np.bincount(row, value**2, len(cases)))[row]
    return Features(row, column, value, len(cases), len(numbers))


def fit(found: Features, labels: Floats, shown: Floats, steps: int = 60) -> Floats:
    """Weights of a logistic regression on the cases shown, by gradient descent with momentum."""
    weights, speed = np.zeros(found.columns), np.zeros(found.columns)
    for _ in range(steps):
        error = (1 / (1 + np.exp(-found.logits(weights))) - labels) * shown
        speed = 0.9 * speed - 4.0 * (found.gradient(error) / shown.sum() + 1e-4 * weights)
        weights = weights + speed
    return weights


def accuracy_without_looking(cases: list[ToyCase]) -> float:
    """Share of cases that a reader gets right who has learned from the other half."""
    found = table(cases)
    labels = np.array([case.label == 1 for case in cases], float)
    second_half = (np.arange(len(cases)) % 2).astype(float)
    right = 0
    for held in (0, 1):
        weights = fit(found, labels, (second_half != held).astype(float))
        guessed = found.logits(weights) > 0
        right += int((guessed == (labels == 1))[second_half == held].sum())
    return right / len(cases)


def test_the_reader_does_find_what_can_be_told_from_words_alone():
    assert accuracy_without_looking(drawn("text", 600)) > 0.8


def test_the_reader_does_find_a_planted_habit(image_cases: list[ToyCase]):
    habit = [c for c in image_cases if max(c.responses) == c.responses[c.label - 1]]
    assert accuracy_without_looking(habit) > 0.8


def test_a_reader_who_does_not_look_at_the_image_is_at_chance(image_cases: list[ToyCase]):
    assert 0.4 < accuracy_without_looking(image_cases) < 0.6


def test_a_reader_who_does_not_look_is_at_chance_where_the_priority_decides():
    assert 0.4 < accuracy_without_looking(drawn("rubric", 800)) < 0.6


def test_a_colour_asked_about_says_nothing_of_what_is_there(oracle: Oracle):
    answers: Counter[str] = Counter()
    for case in [*drawn("rubric", 8000, "colour"), *drawn("rubric", 8000, "existence")]:
        if {matter.topic for matter in case.priorities} == {"colour", "presence"}:
            asked = oracle.question(case.question).asked
            (existence,) = [one for one in asked if one.family == "existence"]
            answers[oracle.truth(case.scene, existence)] += 1
    assert answers.total() > 2500
    assert answers["yes"] / answers.total() == pytest.approx(0.5, abs=0.035)


def test_a_response_beside_the_point_says_nothing_of_what_is_there(oracle: Oracle):
    """Of two questions of which one is answered unasked, neither gives the other's truth away."""
    answers: Counter[str] = Counter()
    for family, other in (("colour", "existence"), ("existence", "colour")):
        for case in drawn("text", 16000, family):
            better, worse = case.responses[case.label - 1], case.responses[2 - case.label]
            if "not asked" in case.evaluation and (said := oracle.heard(worse, [other])):
                told = said if other == "existence" else oracle.said(better, [family])
                answers[told.claims[0]] += 1
    assert answers.total() > 2500
    assert answers["yes"] / answers.total() == pytest.approx(0.5, abs=0.035)


def test_labels_are_balanced(image_cases: list[ToyCase]):
    assert sum(c.label == 1 for c in image_cases) / len(image_cases) == pytest.approx(0.5, abs=0.03)


def number_in(text: str) -> int:
    return max((int(digits) for digits in re.findall(r"\d+", text)), default=-1)


def names_of_question(case: ToyCase, text: str) -> int:
    """Where in the question the words of a response begin; late when they are not there."""
    claim = " ".join(re.findall(r"\w+", text)[-2:])
    return case.question.find(claim) % 1000


def words_shared(text: str, rubric: Rubric) -> int:
    return len(set(words(text)) & set(words(rubric.text)))


def unstated(case: ToyCase) -> Rubric:
    return case.with_rubric_varied(random.Random(case.question), stated=False).rubric


RULES: dict[str, Callable[[ToyCase, str], Any]] = {
    "the longer": lambda _, text: len(text),
    "the one with more words": lambda _, text: len(text.split()),
    "the larger number": lambda _, text: number_in(text),
    "the first in the dictionary": lambda _, text: text,
    "the one with an even number": lambda _, text: number_in(text) % 2,
    "the one whose words the question names first": names_of_question,
    "the one with more words of a rubric that leaves the facts to its reader": (
        lambda case, text: words_shared(text, unstated(case))
    ),
}


def share_right(cases: list[ToyCase], rule: Callable[[ToyCase, str], Any]) -> tuple[float, int]:
    """How often the rule's favourite is better, where it has one; and in how many cases."""
    valued = [(rule(c, c.responses[0]), rule(c, c.responses[1]), c.label) for c in cases]
    decided = [(one > two) == (label == 1) for one, two, label in valued if one != two]
    return sum(decided) / max(1, len(decided)), len(decided)


@pytest.mark.parametrize("rule", RULES)
def test_no_simple_rule_finds_the_better_response(image_cases: list[ToyCase], rule: str):
    share, decided = share_right(image_cases, RULES[rule])
    assert decided > 150
    assert abs(share - 0.5) < 4 * 0.5 / decided**0.5 < 0.17


def test_a_rubric_that_states_the_facts_gives_the_better_response_away(image_cases: list[ToyCase]):
    """The rule finds it there: that it finds nothing elsewhere says something."""
    share, decided = share_right(image_cases, lambda case, text: words_shared(text, case.rubric))
    assert decided > 1000
    assert share > 0.95


@pytest.mark.parametrize("family", FAMILIES)
def test_no_simple_rule_works_for_one_family(family: str):
    cases = drawn("image", 500, family)
    for rule in RULES.values():
        share, decided = share_right(cases, rule)
        assert abs(share - 0.5) < 4.5 * 0.5 / max(1, decided) ** 0.5
    assert sum(c.label == 1 for c in cases) / len(cases) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("description", "instruction")])
def test_of_two_claims_neither_is_true_more_often(oracle: Oracle, family: str):
    assert_no_claim_is_favoured(oracle, family, drawn("image", 1200, family))


def assert_no_claim_is_favoured(oracle: Oracle, family: str, cases: list[ToyCase]) -> None:
    """The prior of a claim, once its rival is known: learned on one half, tried on the other."""
    seen: dict[tuple[str, str], Counter[str]] = {}
    right = tried = 0
    for number, case in enumerate(cases):
        claims = [oracle.said(text, [family]).claims[0] for text in case.responses]
        pair = (min(claims), max(claims))
        truth = claims[case.label - 1]
        if number < len(cases) // 2:
            seen.setdefault(pair, Counter())[truth] += 1
        elif pair in seen:
            tried += 1
            right += seen[pair].most_common(1)[0][0] == truth
    assert right / max(1, tried) < 0.5 + 4 * 0.5 / max(1, tried) ** 0.5
