"""From verdict tokens to one probability, over orders and votes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from operator import add

from models.calibration import Order, sigmoid
from models.comparison import Position
from models.rubric import Rubric
from service.engines import LabelLogprobs
from service.judging.judgement import AbstentionReason, Judgement, JudgingOptions, Pass, Usage


def probability_of_first(labels: LabelLogprobs) -> float:
    """P(label 1) among the two labels, from raw log-probabilities over the whole vocabulary."""
    return sigmoid(labels.first - labels.second)


def label_mass(labels: LabelLogprobs) -> float:
    """P(label 1) + P(label 2): far below 1, the judge wanted to write something else."""
    return min(1.0, math.exp(labels.first) + math.exp(labels.second))


def mirrored(probability: float, order: Order) -> float:
    """P(response 1 is better) as asked, from P(the response read first is better)."""
    return probability if order == "given" else 1.0 - probability


def summed_up(passes: Sequence[Pass], options: JudgingOptions, rubric: Rubric | None) -> Judgement:
    """One judgement of all passes.

    Votes are averaged within their order and the orders with each other, so that
    a lost vote does not tilt the balance between the orders. An order of which
    no pass can be read makes the whole judgement an abstention: half an answer
    to a question that asked for both orders is not an answer.

    Args:
        passes: all that were made, the first one first.
        options: what was asked for.
        rubric: the one judged by.
    """
    by_order = _mean_by_order(passes)
    were_read = {found.order for found in passes}
    reason: AbstentionReason | None = next(
        (found.reason for found in passes if found.reason is not None), None
    )
    probability: float | None = None
    consistent: bool | None = None
    if by_order.keys() == were_read:
        reason = None
        probability = math.fsum(by_order.values()) / len(by_order)
        if len(by_order) == 2:
            consistent = (by_order["given"] >= 0.5) == (by_order["swapped"] >= 0.5)
        if options.require_consistent and consistent is False:
            probability, reason = None, "disagreement"
    may_be_sure = options.order in ("adaptive", "escalate")
    sure = may_be_sure and were_read == {"given"} and probability is not None
    preferred: Position | None = None
    if probability is not None:
        preferred = 1 if probability >= 0.5 else 2
    return Judgement(
        passes=tuple(passes),
        rubric=rubric,
        evaluation=passes[0].evaluation,
        preferred=preferred,
        probability=probability,
        order_consistent=consistent,
        stopped="sure" if sure else "complete",
        reason=reason,
        usage=reduce(add, (p.usage for p in passes), Usage()),
        injection_attempts=passes[0].injection_attempts,
    )


def _mean_by_order(passes: Sequence[Pass]) -> dict[Order, float]:
    readable: dict[Order, list[float]] = {}
    for found in passes:
        if found.probability is not None:
            readable.setdefault(found.order, []).append(found.probability)
    return {order: math.fsum(values) / len(values) for order, values in readable.items()}
