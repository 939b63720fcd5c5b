from __future__ import annotations

import math

import pytest

from models.calibration import Order, Platt, sigmoid
from models.formats import load_format
from models.judgement import Part
from models.rubric import Rubric
from service.engines import Generation, LabelLogprobs
from service.judging.judgement import Pass, Usage
from service.judging.reading import Start, begun, read_pass, read_rubric_alone, usage_of

PLAIN = Platt()
OURS = load_format("proxy_grm")
RUBRIC = "<rubric>\n1. Count (100%)\n</rubric>\n"
REST = "<eval>\nFine.\n</eval>\n<answer>1</answer>"


def generation(text: str, first: float = 0.8, *, truncated: bool = False) -> Generation:
    labels = LabelLogprobs(math.log(first), math.log(1 - first))
    return Generation(text, truncated, 7, 5, 3, labels, 0.25)


def read(found: Generation, part: Part, order: Order = "given", platt: Platt = PLAIN) -> Pass:
    return read_pass(found, OURS, part, begun(order, found, Start()), platt)


@pytest.mark.parametrize(
    ("text", "part", "rubric"),
    [(RUBRIC + REST, "rubric", Rubric("1. Count (100%)")), (REST, "evaluation", None)],
)
def test_a_pass_has_what_was_written_and_how_sure(text, part, rubric):
    found = read(generation(text), part)
    assert (found.rubric, found.evaluation, found.reason) == (rubric, "Fine.", None)
    assert (found.preferred, found.probability) == (1, pytest.approx(0.8))
    assert found.usage == Usage(7, 5, 3, calls=1)


def test_a_swapped_pass_is_calibrated_as_it_was_read_and_then_mirrored():
    found = read(generation(REST), "evaluation", "swapped", Platt(bias=1.0))
    assert found.probability == pytest.approx(1 - 1 / (1 + math.exp(-(math.log(4) + 1))))
    assert found.preferred == 2


@pytest.mark.parametrize("part", ["rubric", "evaluation"])
@pytest.mark.parametrize(("truncated", "reason"), [(True, "truncated"), (False, "unreadable")])
def test_what_cannot_be_read_is_an_abstention(part, truncated, reason):
    found = read(generation("<eval>", truncated=truncated), part)
    assert (found.reason, found.preferred, found.probability) == (reason, None, None)
    assert found.usage == Usage(7, 5, 3, calls=1)


def test_a_rubric_alone_is_read_or_a_reason_is_given():
    assert read_rubric_alone(generation(RUBRIC)) == (Rubric("1. Count (100%)"), None)
    assert read_rubric_alone(generation("hm")) == (None, "unreadable")
    assert read_rubric_alone(generation("<rubric>", truncated=True)) == (None, "truncated")


def test_usage_is_what_the_engine_counted():
    assert usage_of(generation("hm")) == Usage(7, 5, 3, calls=1)


def test_a_judge_that_was_surprised_by_its_own_words_is_less_sure_of_the_same_verdict():
    found = read(generation(REST), "evaluation", platt=Platt(doubt=4))
    assert found.surprisal == 0.25
    assert found.probability == pytest.approx(sigmoid(math.log(4) / 2))
    assert found.preferred == 1


def test_what_was_written_before_counts_as_what_is_written_now():
    found = begun("swapped", generation(REST), Start("So: ", 0.75))
    assert (found.order, found.text, found.surprisal) == ("swapped", f"So: {REST}", 0.75)


@pytest.mark.parametrize(
    ("before", "now", "both"),
    [(None, None, None), (None, 0.5, 0.5), (0.5, None, 0.5), (0.2, 0.7, 0.7), (0.7, 0.2, 0.7)],
)
def test_the_largest_surprise_is_kept(before, now, both):
    assert Start(surprisal=before).then(now) == both
