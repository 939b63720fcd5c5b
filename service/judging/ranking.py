"""N responses in order, from as few comparisons as it takes.

Few responses meet each other all. Of more, each round compares those pairs whose outcomes would
together tell most about the order, all of a round at the same time; it ends when the order is known
well enough or the budget is spent.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.comparison import Position
from service.concurrency import together
from service.judging.strengths import Floats, Outcome, Strengths, fit, spread

ALL_PAIRS_UP_TO = 6
"""Responses that still meet each other all when no budget is given."""

_LOT = 1e-10
"""Below what a pair's worth is rounded to."""

Compare = Callable[[int, int], Coroutine[Any, Any, float | None]]
"""P(the first index's response is better than the second's); None for an abstention."""

Pair = tuple[int, int]
Stop = Literal["all_compared", "confident", "budget"]


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """When to stop comparing.

    Attributes:
        budget: comparisons; None compares all pairs of up to `ALL_PAIRS_UP_TO` responses, and of
            more as many as `default_budget` says.
        confidence: stop when this share of all pairs is expected to stand in the right order.
            At 1 a budget for all pairs has them all compared, and all at once.
        seed: of the first round, about which nothing is known.
    """

    budget: int | None = None
    confidence: float = 0.98
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Met:
    """One comparison that was made; an abstention has no probability."""

    first: int
    second: int
    probability: float | None

    @property
    def preferred(self) -> Position | None:
        """1 for the first, 2 for the second; None for an abstention."""
        if self.probability is None:
            return None
        return 1 if self.probability >= 0.5 else 2


@dataclass(frozen=True, slots=True)
class Ranking:
    """N responses in order, indices from 0.

    Attributes:
        order: best first, without the `unread`.
        strengths: Bradley-Terry, see `Strengths`; NaN for the `unread`.
        win_rate_N: mean P(i is better) over all others: measured where the two have met,
            from the strengths elsewhere; NaN for the `unread`.
        unread: have met others and not one of these comparisons could be read: nobody knows where
            they stand. All of them, where there was no comparison that could be read.
        met: in the order of asking.
        cycles: triples of which each beats the next and the last the first.
        stopped: why no more were compared.
    """

    order: tuple[int, ...]
    strengths: Strengths
    win_rate_N: Floats
    unread: frozenset[int]
    met: tuple[Met, ...]
    cycles: tuple[tuple[int, int, int], ...]
    stopped: Stop

    @property
    def reward_N(self) -> Floats:
        """Net win rate, -1..1, with mean 0: a group's rewards in GRPO. NaN for the `unread`."""
        return 2 * self.win_rate_N - 1


def default_budget(number: int) -> int:
    """Enough to sort, with some to spare for a judge that errs."""
    pairs = number * (number - 1) // 2
    if number <= ALL_PAIRS_UP_TO:
        return pairs
    return min(pairs, math.ceil(0.75 * number * math.log2(number)))


async def rank(
    responses: Sequence[str], compare: Compare, options: RankingOptions | None = None
) -> Ranking:
    """Ranks N responses.

    A pair is never asked twice, and equal texts, frequent among rollouts, are as good as each
    other without being asked. An abstention stays one: it says nothing about either response.

    Args:
        responses: at least two.
        compare: asked for several pairs at the same time; what it raises ends the ranking.
        options: when to stop.

    Raises:
        ValueError: there are fewer than two responses.
    """
    if len(responses) < 2:
        raise ValueError(f"there is nothing to rank among {len(responses)}")
    texts = list(dict.fromkeys(responses))
    stands_for = [responses.index(text) for text in texts]

    def compare_texts(first: int, second: int) -> Coroutine[Any, Any, float | None]:
        return compare(stands_for[first], stands_for[second])

    met, stopped = await _compare(len(texts), compare_texts, options or RankingOptions())
    found = [Met(stands_for[one.first], stands_for[one.second], one.probability) for one in met]
    return ranking_of(responses, found, stopped)


def ranking_of(responses: Sequence[str], met: Sequence[Met], stopped: Stop) -> Ranking:
    """The ranking that follows from comparisons.

    Args:
        responses: as in `rank`.
        met: of any that differ; each also speaks for the responses that are equal to it.
        stopped: why there are no more of them.
    """
    texts = list(dict.fromkeys(responses))
    text_N = np.array([texts.index(response) for response in responses])
    of_texts = [Met(int(text_N[m.first]), int(text_N[m.second]), m.probability) for m in met]
    strengths = fit(len(texts), _outcomes(of_texts))
    unread = _unread(of_texts, len(texts))
    known_M = np.array([n for n in range(len(text_N)) if text_N[n] not in unread], dtype=np.int64)
    at_M = text_N[known_M]
    return Ranking(
        order=tuple(sorted(known_M.tolist(), key=lambda n: -strengths.mean_N[text_N[n]])),
        strengths=strengths.of(at_M).among(len(text_N), known_M),
        win_rate_N=spread(_win_rates(strengths, of_texts, at_M), len(text_N), known_M),
        unread=frozenset(range(len(text_N))) - frozenset(known_M.tolist()),
        met=tuple(met),
        cycles=tuple(_cycles(met)),
        stopped=stopped,
    )


async def _compare(
    number: int, compare: Compare, options: RankingOptions
) -> tuple[list[Met], Stop]:
    """The comparisons of 0..number-1, round by round."""
    budget = default_budget(number) if options.budget is None else options.budget
    unmet = set(itertools.combinations(range(number), 2))
    rng = np.random.default_rng(options.seed)
    met: list[Met] = []
    while True:
        strengths = fit(number, _outcomes(met))
        stopped = _stopped(strengths, len(unmet), budget - len(met), options.confidence)
        # Before the first round nothing is known, whatever confidence is asked for.
        if stopped is not None and (met or stopped != "confident"):
            return met, stopped
        few = number <= ALL_PAIRS_UP_TO or options.confidence >= 1
        if few and len(unmet) <= budget - len(met):
            chosen = sorted(unmet)
        else:
            most = min(budget - len(met), _round_size(number))
            chosen = choose(strengths, unmet, most, rng)
        turns = _in_turns(chosen, met)
        found = await together(compare(*pair) for pair in turns)
        met += [Met(*pair, p) for pair, p in zip(turns, found, strict=True)]
        unmet -= set(chosen)


def choose(
    strengths: Strengths, unmet: Collection[Pair], most: int, rng: np.random.Generator
) -> list[Pair]:
    """Pairs that together tell most about the order; ties fall by lot.

    A pair tells the more, the likelier the order of the two is wrong as it stands, and the less
    is known about how far they are apart. Each is chosen as if those before it were known
    already, so that a round does not ask the same thing in many ways.
    """
    number = len(strengths.mean_N)
    open_NN = np.zeros((number, number), dtype=bool)
    for pair in unmet:
        open_NN[pair] = True
    lot_NN = _LOT * rng.random((number, number))
    chosen: list[Pair] = []
    for _ in range(min(most, len(unmet))):
        # Rounded, or the last bit of equal values would decide in place of the lot.
        tells_NN = np.where(open_NN, np.round(_tells(strengths), 9) + lot_NN, -1.0)
        first, second = divmod(int(tells_NN.argmax()), number)
        chosen.append((first, second))
        open_NN[first, second] = False
        strengths = strengths.once_compared(first, second)
    return chosen


def _tells(strengths: Strengths) -> Floats:
    """How much comparing i and j tells about the order, shape (N, N)."""
    mean_NN, variance_NN = strengths.differences_NN
    sd_NN = np.sqrt(np.maximum(variance_NN, 1e-12))
    # A logistic in place of the Gaussian: only which pair tells most matters.
    return sd_NN / (1 + np.exp(np.minimum(1.702 * np.abs(mean_NN) / sd_NN, 700.0)))


def _round_size(number: int) -> int:
    """Everybody meets three others, about.

    Smaller rounds know more when they choose, but each costs the engine about as much as a large
    one: it writes many judgements in little more time than one.
    """
    return math.ceil(1.5 * number)


def _wrong(strengths: Strengths) -> Floats:
    """P(i and j stand in the wrong order), shape (N, N)."""
    mean_NN, variance_NN = strengths.differences_NN
    z_NN = np.abs(mean_NN) / np.sqrt(np.maximum(variance_NN, 1e-12))
    return np.array([[0.5 * math.erfc(z / math.sqrt(2)) for z in row] for row in z_NN])


def _stopped(strengths: Strengths, unmet: int, left: int, confidence: float) -> Stop | None:
    if unmet == 0:
        return "all_compared"
    if left <= 0:
        return "budget"
    wrong_NN = _wrong(strengths)
    right = 1 - wrong_NN[np.triu_indices(len(wrong_NN), 1)].mean()
    return "confident" if right >= confidence else None


def _in_turns(pairs: Sequence[Pair], met: Sequence[Met]) -> list[Pair]:
    """Each pair so that both are read first about as often as second."""
    ahead: Counter[int] = Counter()
    for one in met:
        ahead.update({one.first: 1, one.second: -1})
    turns: list[Pair] = []
    for one, other in pairs:
        first, second = (one, other) if ahead[one] <= ahead[other] else (other, one)
        ahead.update({first: 1, second: -1})
        turns.append((first, second))
    return turns


def _outcomes(met: Iterable[Met]) -> list[Outcome]:
    return [
        Outcome(one.first, one.second, one.probability)
        for one in met
        if one.probability is not None
    ]


def _unread(met: Collection[Met], number: int) -> set[int]:
    """Those of 0..number-1 of which no comparison could be read, though some were made."""
    read = {n for one in _outcomes(met) for n in (one.first, one.second)}
    if met and not read:
        return set(range(number))
    return {n for one in met for n in (one.first, one.second)} - read


def _win_rates(strengths: Strengths, met: Iterable[Met], text_N: NDArray[np.int64]) -> Floats:
    better_TT = strengths.better_NN.copy()
    for one in _outcomes(met):
        better_TT[one.first, one.second] = one.probability
        better_TT[one.second, one.first] = 1 - one.probability
    better_NN = better_TT[np.ix_(text_N, text_N)]
    np.fill_diagonal(better_NN, 0.0)
    return better_NN.sum(axis=1) / max(1, len(text_N) - 1)


def _cycles(met: Iterable[Met]) -> Iterator[tuple[int, int, int]]:
    """Each cycle of three once, beginning with its lowest index."""
    beaten: dict[int, set[int]] = {}
    for one in _outcomes(met):
        if one.probability != 0.5:
            pair = (one.first, one.second)
            winner, loser = pair if one.probability > 0.5 else pair[::-1]
            beaten.setdefault(winner, set()).add(loser)
    for a in sorted(beaten):
        for b in sorted(beaten[a]):
            for c in sorted(beaten.get(b, ())):
                if a < min(b, c) and a in beaten.get(c, ()):
                    yield a, b, c
