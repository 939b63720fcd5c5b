from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import Order
from models.rubric import Rubric
from service.engines import LabelLogprobs
from service.judging import JudgingOptions, Pass, Usage
from service.judging.probability import label_mass, mirrored, probability_of_first, summed_up

GIVEN = JudgingOptions()
BOTH = JudgingOptions(order="both")
CONSISTENT = JudgingOptions(order="both", require_consistent=True)


def read(order: Order, probability: float) -> Pass:
    return Pass(
        order,
        "",
        probability=probability,
        preferred=1 if probability >= 0.5 else 2,
        usage=Usage(3, calls=1),
    )


def lost(order: Order, reason: str = "unreadable") -> Pass:
    return Pass(order, "", reason=reason, usage=Usage(3, calls=1))  # pyright: ignore[reportArgumentType]


def logs(first: float, second: float) -> LabelLogprobs:
    return LabelLogprobs(math.log(first), math.log(second))


@pytest.mark.parametrize(
    ("labels", "probability", "mass"),
    [
        (logs(0.6, 0.4), 0.6, 1.0),
        (logs(0.06, 0.04), 0.6, 0.1),
        (logs(0.5, 0.5), 0.5, 1.0),
        (LabelLogprobs(-1000.0, -1000.0), 0.5, 0.0),
        (LabelLogprobs(0.0, -2000.0), 1.0, 1.0),
        (LabelLogprobs(-2000.0, 0.0), 0.0, 1.0),
        (LabelLogprobs(0.0, -math.inf), 1.0, 1.0),
        (LabelLogprobs(-math.inf, 0.0), 0.0, 1.0),
    ],
)
def test_the_probability_is_the_share_of_the_first_label_among_the_two(
    labels: LabelLogprobs, probability: float, mass: float
):
    assert probability_of_first(labels) == pytest.approx(probability)
    assert label_mass(labels) == pytest.approx(mass)


def test_the_mass_never_exceeds_one():
    assert label_mass(LabelLogprobs(1e-9, -20.0)) == 1.0


def test_a_swapped_probability_is_mirrored_and_a_given_one_is_not():
    assert mirrored(0.7, "given") == 0.7
    assert mirrored(0.7, "swapped") == pytest.approx(0.3)


@pytest.mark.parametrize(("probability", "preferred"), [(0.5, 1), (0.4999, 2), (0.9, 1), (0.0, 2)])
def test_the_first_response_is_preferred_from_one_half_on(probability: float, preferred: int):
    judgement = summed_up([read("given", probability)], GIVEN, None)
    assert (judgement.preferred, judgement.probability) == (preferred, probability)
    assert judgement.order_consistent is None
    assert judgement.reason is None


def test_both_orders_are_averaged():
    judgement = summed_up([read("given", 0.9), read("swapped", 0.7)], BOTH, None)
    assert judgement.probability == pytest.approx(0.8)
    assert judgement.preferred == 1
    assert judgement.order_consistent is True


def test_orders_that_disagree_are_averaged_and_said_to_disagree():
    judgement = summed_up([read("given", 0.9), read("swapped", 0.2)], BOTH, None)
    assert judgement.probability == pytest.approx(0.55)
    assert judgement.preferred == 1
    assert judgement.order_consistent is False
    assert judgement.reason is None


def test_orders_that_disagree_are_an_abstention_when_consistency_is_required():
    judgement = summed_up([read("given", 0.9), read("swapped", 0.2)], CONSISTENT, None)
    assert judgement.reason == "disagreement"
    assert judgement.preferred is None
    assert judgement.probability is None
    assert judgement.order_consistent is False


def test_orders_that_agree_satisfy_the_requirement():
    judgement = summed_up([read("given", 0.9), read("swapped", 0.6)], CONSISTENT, None)
    assert judgement.reason is None
    assert judgement.probability == pytest.approx(0.75)


def test_votes_are_averaged_within_their_order_first():
    passes = [read("given", 1.0), read("given", 0.8), read("swapped", 0.1)]
    judgement = summed_up(passes, BOTH, None)
    assert judgement.probability == pytest.approx((0.9 + 0.1) / 2)


def test_a_lost_vote_does_not_tilt_the_balance_between_the_orders():
    passes = [read("given", 0.8), lost("given"), read("swapped", 0.4), read("swapped", 0.4)]
    judgement = summed_up(passes, BOTH, None)
    assert judgement.probability == pytest.approx(0.6)
    assert judgement.reason is None


@pytest.mark.parametrize("reason", ["unreadable", "truncated"])
def test_an_order_without_a_readable_pass_is_an_abstention(reason: str):
    judgement = summed_up([read("given", 0.9), lost("swapped", reason)], BOTH, None)
    assert judgement.reason == reason
    assert judgement.preferred is None
    assert judgement.probability is None
    assert judgement.order_consistent is None


def test_the_first_reason_is_the_judgements_reason():
    passes = [lost("given", "truncated"), lost("given", "unreadable")]
    assert summed_up(passes, GIVEN, None).reason == "truncated"


def test_what_all_passes_cost_is_added_up():
    rubric = Rubric("1. Truth (100%)")
    judgement = summed_up([read("given", 0.9), lost("swapped")], BOTH, rubric)
    assert judgement.usage == Usage(6, calls=2)
    assert judgement.rubric is rubric
    assert len(judgement.passes) == 2


passes_of_both = st.lists(
    st.tuples(
        st.sampled_from(["given", "swapped"]), st.none() | st.floats(0, 1, allow_nan=False)
    ).map(lambda drawn: lost(drawn[0]) if drawn[1] is None else read(drawn[0], drawn[1])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200, database=None, deadline=None)
@given(passes=passes_of_both, options=st.sampled_from([GIVEN, BOTH, CONSISTENT]))
def test_a_judgement_has_a_verdict_a_probability_or_a_reason_but_never_half_of_one(
    passes: list[Pass], options: JudgingOptions
):
    orders: tuple[Order, ...] = ("given",) if options.order == "given" else ("given", "swapped")
    passes = [p for p in passes if p.order in orders]
    were_read = {p.order for p in passes}
    passes += [lost(order) for order in orders if order not in were_read]
    judgement = summed_up(passes, options, None)
    if judgement.reason is None:
        assert judgement.probability is not None
        assert 0 <= judgement.probability <= 1
        assert judgement.preferred == (1 if judgement.probability >= 0.5 else 2)
    else:
        assert judgement.probability is None
        assert judgement.preferred is None
        expected = {"unreadable"} | ({"disagreement"} if options.require_consistent else set())
        assert judgement.reason in expected
