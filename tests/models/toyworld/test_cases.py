from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.judgement import ANSWER_END, GRAMMARS, read_judgement, verdict_prefix
from models.neutralise import Neutraliser
from models.toyworld import draw, make_case
from models.toyworld.cases import FAMILIES
from models.toyworld.scene import COLOURS

SEEDS = st.integers(min_value=0, max_value=2**32)
QUICK = settings(deadline=None)


def case_of(seed, family=None):
    return make_case(random.Random(seed), family)


def truth(case):
    """The right answer, worked out from the scene and the question alone."""
    named = re.findall(r"(\w+) (circle|square|triangle)", case.question)
    if case.family == "count":
        colour, shape = re.search(r"many (\w+) (\w+)s", case.question).groups()
        return str(case.scene.count(colour, shape))
    if case.family == "existence":
        return "yes" if case.scene.count(*named[0]) else "no"
    if case.family == "colour":
        shape = re.search(r"the (\w+)\?", case.question).group(1)
        (asked,) = [o for o in case.scene.objects if o.shape == shape]
        return asked.colour
    one, two = (
        next(o for o in case.scene.objects if (o.colour, o.shape) == name) for name in named
    )
    if "above or below" in case.question:
        return "above" if one.row < two.row else "below"
    return "left" if one.column < two.column else "right"


def claim(response):
    (found,) = [
        word
        for word in re.findall(r"\w+", response.lower())
        if word.isdigit() or word in {*COLOURS, "yes", "no", "above", "below", "left", "right"}
    ]
    return found


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=SEEDS)
@QUICK
def test_the_label_names_the_response_that_is_true(family, seed):
    case = case_of(seed, family)
    better, worse = case.responses if case.label == 1 else case.responses[::-1]
    assert case.family == family
    assert claim(better) == truth(case)
    assert claim(worse) != truth(case)


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=SEEDS)
@QUICK
def test_the_evaluation_finds_one_response_right_and_the_other_wrong(family, seed):
    case = case_of(seed, family)
    fact, *findings = case.evaluation.split("\n")
    verdicts = ["right", "wrong"] if case.label == 1 else ["wrong", "right"]
    assert fact.startswith("The image shows: ")
    assert truth(case) in fact
    assert findings == [
        f"Response {place} says {claim(response)}: {place} {verdict}."
        for place, response, verdict in zip((1, 2), case.responses, verdicts, strict=True)
    ]


@given(SEEDS)
@QUICK
def test_what_the_perfect_judge_writes_follows_the_grammar(seed):
    case = case_of(seed)
    whole, rest = case.written(), case.written(rubric_given=True)
    assert re.fullmatch(GRAMMARS["rubric"], whole)
    assert re.fullmatch(GRAMMARS["evaluation"], rest)
    judgement = read_judgement(whole)
    assert judgement.rubric == case.rubric
    assert judgement.evaluation == case.evaluation
    assert judgement.preferred == case.label
    assert read_judgement(rest, "evaluation").preferred == case.label


@given(SEEDS)
@QUICK
def test_without_an_evaluation_the_verdict_stands_after_the_verdict_prefix(seed):
    case = case_of(seed)
    own = case.written(evaluated=False)
    given_rubric = case.written(rubric_given=True, evaluated=False)
    assert own == f"{verdict_prefix(case.rubric)}{case.label}{ANSWER_END}"
    assert given_rubric == f"{verdict_prefix(None)}{case.label}{ANSWER_END}"
    assert re.fullmatch(GRAMMARS["rubric"], own)
    assert re.fullmatch(GRAMMARS["evaluation"], given_rubric)


@given(SEEDS)
@QUICK
def test_the_rubric_has_two_criteria_that_can_be_read(seed):
    rubric = case_of(seed).rubric
    first, second = rubric.criteria
    assert first.name.endswith("accuracy")
    assert second.name == "Relevance"
    assert first.weight in (0.6, 0.7, 0.8)
    assert first.weight + second.weight == pytest.approx(1)
    assert rubric.justification.startswith("The question asks ")


@given(SEEDS)
@QUICK
def test_nothing_in_a_case_has_to_be_neutralised(seed):
    case = case_of(seed)
    neutralise = Neutraliser(["<|im_end|>"])
    texts = (case.question, *case.responses, case.rubric.text)
    assert [neutralise(text).attempts for text in texts] == [0, 0, 0, 0]


@given(SEEDS)
@QUICK
def test_the_same_random_state_gives_the_same_case(seed):
    assert case_of(seed) == case_of(seed)


def test_labels_and_families_are_balanced():
    rng = random.Random(0)
    cases = [make_case(rng) for _ in range(800)]
    share_of_ones = sum(case.label == 1 for case in cases) / len(cases)
    assert share_of_ones == pytest.approx(0.5, abs=0.06)
    for family in FAMILIES:
        of_family = sum(case.family == family for case in cases) / len(cases)
        assert of_family == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_label_cannot_be_told_from_the_length_of_the_responses(family):
    rng = random.Random(0)
    cases = [make_case(rng, family) for _ in range(600)]
    longer = [len(c.responses[0]) > len(c.responses[1]) for c in cases]
    told = [(c.label == 1) == long for c, long in zip(cases, longer, strict=True)]
    assert sum(told) / len(told) == pytest.approx(0.5, abs=0.08)


def test_an_unknown_family_is_an_error():
    with pytest.raises(KeyError, match="smell"):
        make_case(random.Random(0), "smell")


def test_a_labeled_case_is_what_a_judge_receives():
    case = case_of(7)
    labeled = case.labeled()
    (picture,) = labeled.comparison.images
    assert labeled.label == case.label
    assert labeled.comparison.question == case.question
    assert labeled.comparison.responses == case.responses
    assert picture.pixels.tobytes() == draw(case.scene).tobytes()
    assert case.picture().tobytes() == draw(case.scene).tobytes()


def test_pictures_have_the_same_identity_exactly_when_their_scenes_are_equal():
    one, same, another = (case_of(seed).labeled().comparison.images[0] for seed in (1, 1, 2))
    assert one.identity == same.identity
    assert one.identity != another.identity
