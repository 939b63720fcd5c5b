from __future__ import annotations

import asyncio

import pytest

from models.benchmarks.asking import ask_all


class Answers:
    """Answers after a moment, the later ones sooner, and counts who is waiting."""

    def __init__(self):
        self.waiting = self.most = 0

    async def __call__(self, question):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.02 / (1 + question))
        self.waiting -= 1
        return -question


async def test_answers_come_in_the_order_of_the_questions():
    assert await ask_all("t", range(10), Answers(), concurrency=4) == [-n for n in range(10)]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_so_many_are_asked_at_once_and_no_more(concurrency):
    answers = Answers()
    await ask_all("t", range(12), answers, concurrency)
    assert answers.most == concurrency


async def test_without_questions_there_are_no_answers():
    assert await ask_all("t", [], Answers(), concurrency=4) == []


async def test_a_question_that_fails_fails_all():
    async def refuse(question):
        raise ValueError(question)

    with pytest.raises(ValueError, match="7"):
        await ask_all("t", [7], refuse, concurrency=1)
