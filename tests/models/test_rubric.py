from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rubric import MOST_CRITERIA, Criterion, Rubric, read_criteria

MEGABYTE = 1_000_000


def test_the_id_is_a_digest_of_the_text():
    digest = hashlib.sha256(b"1. Accuracy (100%): right.").hexdigest()
    assert Rubric("1. Accuracy (100%): right.").id == f"rub_{digest[:24]}"


def test_rubrics_of_equal_text_share_their_id_whatever_their_justification():
    assert Rubric("same", "because").id == Rubric("same").id
    assert Rubric("same").id != Rubric("same ").id


def test_numbered_lines_are_criteria():
    text = (
        "1. Count accuracy (60%): the number of circles matches the image.\n"
        "2. Relevance (40%): answers what was asked."
    )
    assert Rubric(text).criteria == (
        Criterion("Count accuracy", "the number of circles matches the image.", 0.6),
        Criterion("Relevance", "answers what was asked.", 0.4),
    )


@pytest.mark.parametrize(
    "line",
    [
        "1. Accuracy (50%): it is right.",
        "12) Accuracy (50%): it is right.",
        "- Accuracy (50%): it is right.",
        "* Accuracy (50 %): it is right.",
        "• Accuracy [50%]: it is right.",
        "  1. **Accuracy** (50%): it is right.",
        "1. **Accuracy (50%)**: it is right.",
        "1. Accuracy - 50%: it is right.",
        "1. Accuracy: 50% - it is right.",
        "1. Accuracy (50.0%) — it is right.",
    ],
)
def test_the_ways_in_which_judges_write_a_criterion(line):
    assert read_criteria(line) == (Criterion("Accuracy", "it is right.", 1.0),)


def test_weights_are_normalised_to_one():
    criteria = read_criteria("- a (30%): x\n- b (30%): y\n- c (60%): z")
    assert [c.weight for c in criteria] == [0.25, 0.25, 0.5]


def test_criteria_of_the_same_name_are_both_kept():
    criteria = read_criteria("1. Accuracy (50%): x\n2. Accuracy (50%): x")
    assert criteria == (Criterion("Accuracy", "x", 0.5), Criterion("Accuracy", "x", 0.5))


def test_a_criterion_of_weight_zero_stays_beside_others():
    assert [c.weight for c in read_criteria("- a (0%): x\n- b (100%): y")] == [0.0, 1.0]


def test_a_description_may_be_missing():
    assert read_criteria("1. Accuracy (100%)") == (Criterion("Accuracy", "", 1.0),)


def test_lines_around_the_criteria_are_passed_over():
    text = "Weigh these:\n1. Accuracy (100%): right.\nThat is 100% of it."
    assert read_criteria(text) == (Criterion("Accuracy", "right.", 1.0),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "Be fair.",
        "1. Accuracy: no weight.",
        "1. Accuracy (sixty %): in words.",
        "Accuracy (60%): neither number nor bullet.",
        "1.Accuracy (60%): no space after the number",
        "1. Accuracy (0%): x\n2. Relevance (0%): y",
        "1. " + "long " * 50 + "(60%): the name has no end",
        "1. (60%)",
    ],
)
def test_a_text_that_cannot_be_read_has_no_criteria_and_stays_a_rubric(text):
    assert Rubric(text).criteria == ()
    assert Rubric(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "1. 65%: accuracy\n2. 35%: relevance",
        "1. Accuracy (1250%): x",
        "1. Accuracy (12.34567%): x",
    ],
)
def test_a_part_of_a_number_is_no_weight(text):
    assert read_criteria(text) == ()


@given(st.text())
@settings(deadline=None)
def test_any_text_can_be_a_rubric(text):
    criteria = read_criteria(text)
    assert not criteria or math.isclose(sum(c.weight for c in criteria), 1)


@given(
    st.lists(
        st.tuples(st.from_regex(r"[A-Z][a-z]{0,20}", fullmatch=True), st.integers(1, 100)),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None)
def test_every_well_written_criterion_is_read(named_weights):
    lines = [f"{n}. {name} ({w}%): met." for n, (name, w) in enumerate(named_weights, start=1)]
    criteria = read_criteria("\n".join(lines))
    total = sum(weight for _, weight in named_weights)
    assert [c.name for c in criteria] == [name for name, _ in named_weights]
    assert [c.weight for c in criteria] == [weight / total for _, weight in named_weights]


@pytest.mark.parametrize(
    "text",
    [
        "x" * MEGABYTE,
        "- " * (MEGABYTE // 2),
        "1. a " + "1" * MEGABYTE,
        "1. a (50%): " + "x" * MEGABYTE,
        "1. a (" * (MEGABYTE // 6),
        "\n" * MEGABYTE,
        " " * MEGABYTE,
    ],
    ids=["letters", "bullets", "digits", "description", "brackets", "lines", "spaces"],
)
def test_a_huge_rubric_is_read_in_a_moment(text, within):
    with within(2):
        assert len(read_criteria(text)) <= 1


@pytest.mark.parametrize("start", ["- ", "- a", "- a 5"])
def test_blanks_without_end_do_not_stop_the_reader(start, within):
    with within(2):
        assert read_criteria(start + " " * 20_000) == ()


def test_more_criteria_than_are_listed_leave_the_text_as_it_is(within):
    lines = ["- a1%\n"] * MOST_CRITERIA
    assert len(read_criteria("".join(lines))) == MOST_CRITERIA
    for text in ("".join([*lines, "- b1%"]), "- a1%\n" * (MEGABYTE // 6)):
        with within(3):
            assert Rubric(text).criteria == ()
        assert Rubric(text).text == text
