from __future__ import annotations

import dataclasses

import pytest
from PIL import Image

from models.comparison import Comparison, JudgeImage, LabeledComparison, other

PICTURES = tuple(
    JudgeImage(Image.new("RGB", (28, 28), (shade, 0, 0)), f"picture:{shade}") for shade in (1, 2)
)


def test_the_other_of_two_positions():
    assert other(1) == 2
    assert other(2) == 1


def test_swapping_exchanges_the_responses_and_nothing_else():
    comparison = Comparison("What is it?", ("a cat", "a dog"), PICTURES)
    swapped = comparison.swap()
    assert swapped.responses == ("a dog", "a cat")
    assert swapped.question == "What is it?"
    assert [image.identity for image in swapped.images] == ["picture:1", "picture:2"]
    assert comparison.responses == ("a cat", "a dog")


def test_swapping_twice_gives_the_comparison_back():
    comparison = Comparison("What is it?", ("a cat", "a dog"), PICTURES)
    assert comparison.swap().swap() == comparison


def test_swapping_equal_responses_changes_nothing():
    comparison = Comparison("", ("same", "same"))
    assert comparison.swap() == comparison


def test_a_comparison_needs_no_images():
    assert Comparison("q", ("a", "b")).images == ()


@pytest.mark.parametrize("label", [1, 2])
def test_the_label_moves_with_its_response(label):
    labeled = LabeledComparison(Comparison("q", ("a", "b")), label)
    better = labeled.comparison.responses[label - 1]
    swapped = labeled.swap()
    assert swapped.label == 3 - label
    assert swapped.comparison.responses[swapped.label - 1] == better
    assert swapped.swap() == labeled


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (Comparison("q", ("a", "b")), "question"),
        (LabeledComparison(Comparison("q", ("a", "b")), 1), "label"),
        (PICTURES[0], "identity"),
    ],
)
def test_comparisons_cannot_be_changed(value, field):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, "x")
