from __future__ import annotations

import pytest

from models.comparison import Comparison
from service.judging import Judgement, Pass, Usage
from service.runs import ImageReliance, Rate, counts_of, counts_of_probe, rates

LONGER_SECOND = Comparison("?", ("short", "rather long"))


def judgement(*passes: Pass, preferred=None, reason=None, attempts=0) -> Judgement:
    return Judgement(
        passes=passes,
        rubric=None,
        evaluation=None,
        preferred=preferred,
        probability=None,
        order_consistent=None,
        stopped="complete",
        reason=reason,
        usage=Usage(),
        injection_attempts=attempts,
    )


def test_a_judgement_is_counted_by_what_was_read_first_and_which_is_longer():
    passes = (Pass("given", "", preferred=1), Pass("swapped", "", preferred=1))
    assert counts_of(LONGER_SECOND, judgement(*passes, preferred=1, attempts=3)) == {
        "judgements": 1,
        "injected": 1,
        "verdicts": 2,
        "read_first": 1,
        "lengths_differ": 1,
    }
    always_first = (Pass("given", "", preferred=1), Pass("swapped", "", preferred=2))
    found = counts_of(LONGER_SECOND, judgement(*always_first, preferred=2))
    assert (found["read_first"], found["longer_wins"]) == (2, 1)


def test_responses_of_one_length_say_nothing_about_length():
    found = counts_of(
        Comparison("?", ("abc", "xyz")), judgement(Pass("given", "", preferred=1), preferred=1)
    )
    assert found == {"judgements": 1, "verdicts": 1, "read_first": 1}


@pytest.mark.parametrize("reason", ["unreadable", "truncated", "disagreement"])
def test_an_abstention_is_counted_by_its_reason_and_is_no_verdict(reason):
    found = counts_of(LONGER_SECOND, judgement(Pass("given", "", reason=reason), reason=reason))
    assert found == {"judgements": 1, reason: 1}


def test_a_disagreement_has_passes_that_count_all_the_same():
    passes = (Pass("given", "", preferred=1), Pass("swapped", "", preferred=2))
    found = counts_of(LONGER_SECOND, judgement(*passes, reason="disagreement"))
    assert found == {"judgements": 1, "disagreement": 1, "verdicts": 2, "read_first": 2}


def test_a_probe_changes_the_verdict_or_moves_the_probability_or_abstains():
    assert counts_of_probe(0.9, 0.75) == (
        "same",
        {"probes": 1, "probes_shift": pytest.approx(0.15)},
    )
    changed, found = counts_of_probe(0.5, 0.25)
    assert (changed, found) == ("changed", {"probes": 1, "probes_changed": 1, "probes_shift": 0.25})
    assert counts_of_probe(0.9, None) == ("abstain", {"probes": 1, "probes_abstained": 1})


def test_rates_say_of_how_many_they_are():
    run = {
        "judgements": 10,
        "unreadable": 1,
        "disagreement": 2,
        "injected": 5,
        "verdicts": 16,
        "read_first": 12,
        "lengths_differ": 8,
        "longer_wins": 6,
        "probes": 5,
        "probes_abstained": 1,
        "probes_changed": 1,
        "probes_shift": 1.0,
    }
    found = rates(run, {"lengths_differ": 108, "longer_wins": 56, "judgements": 500})
    assert found.judgements == 10
    assert found.abstained == Rate(10, 0.3)
    assert found.abstentions == {"unreadable": 1, "truncated": 0, "disagreement": 2}
    assert found.injection_attempts == Rate(10, 0.5)
    assert found.first_position == Rate(16, 0.75)
    assert found.longer_wins == Rate(8, 0.75)
    assert found.longer_wins_baseline == Rate(100, 0.5)
    assert found.image_reliance == ImageReliance(5, Rate(4, 0.25), 0.25, 1)


def test_of_nothing_there_is_no_rate():
    found = rates({"judgements": 1, "truncated": 1}, {})
    assert found.abstained == Rate(1, 1.0)
    assert found.first_position == found.longer_wins == found.longer_wins_baseline == Rate(0, None)
    assert found.image_reliance is None
    blind = rates({"judgements": 1, "probes": 2, "probes_abstained": 2}, {}).image_reliance
    assert blind == ImageReliance(2, Rate(0, None), None, 2)


def test_counts_that_got_lost_on_the_way_make_no_negative_rate():
    run = {"judgements": 5, "lengths_differ": 5, "longer_wins": 5}
    assert rates(run, {"lengths_differ": 3, "longer_wins": 3}).longer_wins_baseline == Rate(0, None)
