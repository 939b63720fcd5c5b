from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.judging.ranking import (
    ALL_PAIRS_UP_TO,
    RankingOptions,
    choose,
    default_budget,
    rank,
)
from service.judging.strengths import Outcome, fit


class Referee:
    """Finds the response of the lower number better, but for what `upsets` says."""

    def __init__(self, upsets=(), abstains=(), p=0.97):
        self.upsets, self.abstains, self.p = set(upsets), set(abstains), p
        self.asked = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, first, second):
        self.asked.append((first, second))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        pair = (min(first, second), max(first, second))
        if pair in self.abstains:
            return None
        lower = self.p if pair not in self.upsets else 1 - self.p
        return lower if first < second else 1 - lower


def texts(number):
    return [f"response {index}" for index in range(number)]


def pairs(number):
    return number * (number - 1) // 2


def agreement(order, number):
    """Kendall's tau with 0, 1, 2, ..."""
    place = {index: n for n, index in enumerate(order)}
    right = sum(place[a] < place[b] for a, b in itertools.combinations(range(number), 2))
    return 2 * right / pairs(number) - 1


@pytest.mark.parametrize("number", range(2, ALL_PAIRS_UP_TO + 1))
async def test_few_responses_meet_each_other_all_at_once(number):
    referee = Referee()
    found = await rank(texts(number), referee)
    assert found.order == tuple(range(number))
    assert len(found.met) == referee.most_at_once == pairs(number)
    assert found.stopped == "all_compared"


@pytest.mark.parametrize("number", [8, 16, 32, 64])
async def test_many_are_ranked_by_a_part_of_their_pairs(number):
    referee = Referee()
    found = await rank(texts(number), referee)
    assert len(found.met) <= default_budget(number) < pairs(number)
    assert agreement(found.order, number) > 0.85
    assert len({frozenset(pair) for pair in referee.asked}) == len(referee.asked)


class Graded(Referee):
    """Surer of the lower number the further apart the two are, and wrong about some."""

    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        self.upset = {p: rng.gauss(0, 1) for p in itertools.combinations(range(16), 2)}

    async def __call__(self, first, second):
        await super().__call__(first, second)
        pair = (min(first, second), max(first, second))
        lower = 1 / (1 + math.exp(-0.5 * (pair[1] - pair[0]) - self.upset[pair]))
        return lower if first < second else 1 - lower


async def test_two_fifths_of_the_pairs_cost_little_of_the_order():
    """Against the round robin of the same referee, over several of them."""
    lost = 0.0
    for seed in range(16):
        everyone = await rank(texts(16), Graded(seed), RankingOptions(budget=120, confidence=1))
        some = await rank(texts(16), Graded(seed), RankingOptions(seed=seed))
        assert len(everyone.met) == 120
        assert len(some.met) <= 48
        lost += agreement(everyone.order, 16) - agreement(some.order, 16)
    assert 0 < lost / 16 < 0.04


async def test_whoever_wants_all_pairs_has_them_compared_at_once():
    referee = Referee()
    found = await rank(texts(16), referee, RankingOptions(budget=120, confidence=1))
    assert len(found.met) == referee.most_at_once == 120
    assert found.stopped == "all_compared"


async def test_the_budget_is_never_exceeded():
    for budget in (0, 1, 5, 17):
        referee = Referee()
        found = await rank(texts(10), referee, RankingOptions(budget=budget))
        assert len(referee.asked) == len(found.met) == budget
        assert found.stopped == "budget"


async def test_it_stops_when_the_order_is_sure_enough():
    found = await rank(texts(10), Referee(), RankingOptions(budget=45, confidence=0.75))
    assert found.stopped == "confident"
    assert len(found.met) < 45


async def test_everybody_is_read_first_about_as_often_as_second():
    referee = Referee()
    await rank(texts(16), referee)
    for index in range(16):
        first = sum(pair[0] == index for pair in referee.asked)
        second = sum(pair[1] == index for pair in referee.asked)
        assert abs(first - second) <= 3


async def test_an_abstention_is_no_win_for_anybody_and_not_asked_again():
    referee = Referee(abstains=itertools.combinations(range(3), 2))
    found = await rank(texts(3), referee)
    assert [one.probability for one in found.met] == [None, None, None]
    assert (found.order, found.unread) == ((), {0, 1, 2})
    assert np.isnan(found.strengths.mean_N).all()
    assert np.isnan(found.reward_N).all()
    assert len(referee.asked) == 3


async def test_a_response_that_could_never_be_read_has_no_place_and_no_reward():
    responses = [*texts(4), texts(4)[2]]
    found = await rank(responses, Referee(p=1.0, abstains=[(0, 2), (1, 2), (2, 3)]))
    assert found.order == (0, 1, 3)
    assert found.unread == {2, 4}
    assert np.isnan(found.reward_N).tolist() == [False, False, True, False, True]
    assert found.reward_N[[0, 1, 3]] == pytest.approx([1, 0, -1])
    assert found.strengths.mean_N[[0, 1, 3]].sum() == pytest.approx(0, abs=1e-9)
    assert np.isnan(found.strengths.interval_N2[2]).all()


async def test_one_comparison_that_can_be_read_gives_a_response_its_place():
    found = await rank(texts(4), Referee(abstains=[(0, 2), (1, 2)]))
    assert (sorted(found.order), found.unread) == ([0, 1, 2, 3], set())


@pytest.mark.parametrize("number", [2, 7, 16])
async def test_nobody_is_ranked_by_confidence_alone(number):
    found = await rank(texts(number), Referee(), RankingOptions(confidence=0.5))
    assert found.met
    assert sorted(found.order) == list(range(number))


async def test_cycles_are_reported_once_each():
    found = await rank(texts(4), Referee(upsets=[(0, 2)]))
    assert found.cycles == ((0, 1, 2),)
    assert (await rank(texts(4), Referee())).cycles == ()
    assert (await rank(texts(3), Referee(p=0.5))).cycles == ()


async def test_the_best_of_all_wins_everything():
    found = await rank(texts(3), Referee(p=1.0))
    assert found.win_rate_N == pytest.approx([1, 0.5, 0])
    assert found.reward_N == pytest.approx([1, 0, -1])


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**16), st.integers(0, 40))
def test_rewards_add_up_to_nothing_and_every_response_has_a_place(number, seed, budget):
    rng = random.Random(seed)

    async def compare(first, second):
        return rng.choice([None, rng.random()])

    found = asyncio.run(rank(texts(number), compare, RankingOptions(budget=budget, seed=seed)))
    assert sorted([*found.order, *found.unread]) == list(range(number))
    rewards = found.reward_N[list(found.order)]
    assert rewards.sum() == pytest.approx(0, abs=1e-9)
    assert (abs(rewards) <= 1).all()


async def test_the_same_seed_asks_the_same():
    one, two, other = Referee(), Referee(), Referee()
    await rank(texts(9), one)
    await rank(texts(9), two)
    await rank(texts(9), other, RankingOptions(seed=1))
    assert one.asked == two.asked != other.asked


async def test_what_a_comparison_raises_ends_the_ranking_and_cancels_the_rest():
    cancelled = 0

    async def compare(first, second):
        nonlocal cancelled
        if (first, second) == (0, 1):
            raise RuntimeError("gone")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    with pytest.raises(RuntimeError, match="gone"):
        await rank(texts(4), compare)
    assert cancelled == 5


async def test_equal_texts_are_not_compared_and_equally_good():
    referee = Referee(p=1.0)
    found = await rank(["a", "b", "a", "c", "b"], referee)
    assert {frozenset(pair) for pair in referee.asked} == {
        frozenset({0, 1}),
        frozenset({0, 3}),
        frozenset({1, 3}),
    }
    assert found.order == (0, 2, 1, 4, 3)
    assert found.strengths.mean_N[0] == found.strengths.mean_N[2]
    assert found.win_rate_N == pytest.approx([7 / 8, 3 / 8, 7 / 8, 0, 3 / 8])
    assert found.reward_N.sum() == pytest.approx(0)


async def test_one_text_many_times_is_never_compared():
    referee = Referee()
    found = await rank(["a"] * 5, referee)
    assert referee.asked == []
    assert found.order == (0, 1, 2, 3, 4)
    assert found.reward_N.tolist() == [0] * 5
    assert found.stopped == "all_compared"


@pytest.mark.parametrize("number", [0, 1])
async def test_one_response_alone_is_no_ranking(number):
    with pytest.raises(ValueError, match="nothing to rank"):
        await rank(texts(number), Referee())


def test_a_doubtful_pair_is_chosen_before_one_that_is_settled():
    known = fit(4, [Outcome(0, 3, 1.0)] * 20 + [Outcome(1, 2, 0.5)])
    unmet = {(0, 3), (1, 2)}
    assert choose(known, unmet, 1, np.random.default_rng(0)) == [(1, 2)]


def test_a_round_asks_about_everybody_about_as_often_and_no_pair_twice():
    unmet = set(itertools.combinations(range(16), 2))
    chosen = choose(fit(16, []), unmet, 24, np.random.default_rng(0))
    assert len(set(chosen)) == 24
    often = Counter(index for pair in chosen for index in pair)
    assert {often[index] for index in range(16)} <= {2, 3, 4}


def test_of_two_pairs_that_tell_the_same_a_round_asks_one_first():
    """What 0-1 and 1-2 tell of 0-2 is known once they are met; 3 and 4 are not."""
    unmet = {(0, 2), (3, 4)}
    known = fit(5, [Outcome(0, 1, 0.5), Outcome(1, 2, 0.5)] * 20)
    assert choose(known, unmet, 2, np.random.default_rng(0)) == [(3, 4), (0, 2)]


def test_only_what_has_not_met_is_chosen():
    unmet = {(0, 5), (2, 3)}
    assert set(choose(fit(6, []), unmet, 10, np.random.default_rng(0))) == unmet


async def test_sixteen_take_two_rounds_which_an_engine_answers_in_two_batches():
    referee = Referee()
    found = await rank(texts(16), referee, RankingOptions(confidence=1.0))
    assert (len(found.met), referee.most_at_once) == (48, 24)


async def test_between_rounds_it_looks_whether_the_order_is_known():
    referee = Referee()
    found = await rank(texts(16), referee, RankingOptions(confidence=0.6))
    assert (len(found.met), found.stopped) == (24, "confident")
