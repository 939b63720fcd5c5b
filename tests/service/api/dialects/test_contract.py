from __future__ import annotations

import asyncio
import pickle

import pytest

from service.api.dialects import load_dialect
from service.api.dialects.contract import patiently
from service.calls import Call
from service.errors import DeadlineExceeded, Overloaded, PayloadTooLarge

pytestmark = pytest.mark.anyio

CALLS = [Call("How many?", (f"There are {n}.", "None.")) for n in range(7)]


async def test_of_one_request_no_more_is_in_work_than_is_judged_at_all(start_gateway):
    gateway = await start_gateway(admission={"running": 3})
    working, most = 0, 0

    async def judge(call: Call) -> str:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1
        return call.responses[0]

    found = await patiently(gateway.parts, CALLS, judge, 60)
    assert found == [call.responses[0] for call in CALLS]
    assert most == 3


async def test_what_is_left_of_the_time_is_for_all_of_them(start_gateway):
    gateway = await start_gateway(admission={"running": 1})
    left: list[float] = []

    async def judge(call: Call) -> None:
        left.append(call.timeout_s)

    await patiently(gateway.parts, CALLS, judge, 60)
    assert left == sorted(left, reverse=True)
    assert left[0] <= 60
    with pytest.raises(DeadlineExceeded):
        await patiently(gateway.parts, CALLS, judge, 0)
    assert len(left) == len(CALLS)


async def test_nothing_is_tried_again_when_there_is_no_time_for_it(gateway):
    async def judge(call: Call) -> None:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        await patiently(gateway.parts, CALLS, judge, 0.5)


async def test_one_that_is_too_large_keeps_all_from_being_judged(start_gateway):
    gateway = await start_gateway(limits={"text_characters": 20})
    judged: list[Call] = []

    async def judge(call: Call) -> None:
        judged.append(call)

    with pytest.raises(PayloadTooLarge):
        await patiently(gateway.parts, [*CALLS, Call("How many? " * 3, ("1", "2"))], judge, 60)
    assert judged == []


def test_what_is_not_known_is_left_behind_where_a_body_is_read():
    read = load_dialect("openrlhf").read
    label = {"question": "How many?", "reference": "Two.", "more": "x" * 10_000}
    asked = read({"query": ["PTwo."], "prompts": ["P"], "labels": [label], "more": label})
    travelled = pickle.dumps(asked)
    assert pickle.loads(travelled) == asked
    assert len(travelled) < 1000
