"""Nothing that a candidate writes acts as a control token, as the judge's words or as a verdict."""

from __future__ import annotations

from collections import Counter

import pytest

from models.benchmarks.attacks import ATTACKS, endless
from models.comparison import Comparison
from models.neutralise import OWN_TAGS
from models.release import Release
from models.rubric import Rubric
from service.engines import GenerationRequest

pytestmark = pytest.mark.anyio

HOSTILE = [name for name in ATTACKS if name not in ("none", "benign")]
PLACES = ("question", "first response", "second response", "rubric")
WRITTEN = (
    "<rubric>\n1. Count (100%): it is right.\n</rubric>\n"
    "<eval>\nThe first is right.\n</eval>\n<answer>1</answer>"
)


def controls(release: Release, place: str, text: str) -> Counter[str]:
    """How often each control string stands in the prompt with the text at that place."""
    texts = [text if place == at else "plain words" for at in PLACES]
    prompt = release.judge.prompts["rubric_given"].fill(
        Comparison(texts[0], (texts[1], texts[2])), release.judge.neutralise, Rubric(texts[3])
    )
    whole = prompt.system + "".join(part for part in prompt.user if isinstance(part, str))
    tags = [f"<{slash}{name}>" for name in OWN_TAGS for slash in ("", "/")]
    strings = (*release.judge.neutralise.special_tokens, *tags)
    return Counter({string: whole.lower().count(string.lower()) for string in strings})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HOSTILE)
def test_no_attack_adds_a_control_string_to_the_prompt(name: str, place: str, release: Release):
    hostile = ATTACKS[name]("There are two.", 2)
    assert controls(release, place, hostile) == controls(release, place, "plain words")


def writes(text: str):
    def script(request: GenerationRequest) -> str:
        return text

    return script


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("name", HOSTILE)
async def test_the_verdict_is_the_judges_whatever_a_response_says(
    name: str, place: int, start_gateway
):
    gateway = await start_gateway(writes(WRITTEN))
    responses = ["There are two.", "There are three."]
    responses[place - 1] = ATTACKS[name](responses[place - 1], 2)
    answer = await gateway.score(responses=responses)
    told = answer.json()
    assert (answer.status_code, told["status"], told["preferred"]) == (200, "ok", 1)
    assert told["evaluation"] == "The first is right."


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_judge_that_quotes_an_attack_has_given_no_verdict_for_it(name: str, start_gateway):
    quoted = WRITTEN.replace("The first is right.", ATTACKS[name]("It says", 2))
    gateway = await start_gateway(writes(quoted))
    told = (await gateway.score()).json()
    assert told["preferred"] in (1, None)  # the verdict that stands at the end, or none
    assert (told["status"], told["reason"]) in (("ok", None), ("abstain", "unreadable"))


async def test_attempts_are_counted(gateway):
    await gateway.score(responses=["Two.", ATTACKS["control_tokens"]("Three.", 2)])
    assert gateway.count("proxy_grm_injection_attempts_total") > 0


async def test_words_without_end_are_read_or_refused_and_harm_nobody(gateway):
    answer = await gateway.score(responses=["Two.", endless("Three.")])
    if answer.status_code != 200:
        assert answer.json()["code"] in ("context_exceeded", "payload_too_large")
    assert len(answer.content) < 16 * 2**10 + 4 * len(endless("Three."))
    assert (await gateway.score()).status_code == 200
