from __future__ import annotations

import itertools
import random
import re

import pytest

from models.toyworld import CaseOptions, make_case
from models.toyworld.looking import random_facts
from models.toyworld.scene import draw
from models.training.practice import LOOK_INSTRUCTION, look_example

SEEING = make_case(random.Random(5), CaseOptions(stratum="image"))


def test_a_look_shows_the_scene_and_asks_for_facts():
    example = look_example(SEEING.scene, random.Random(0), 6)
    assert example.system == LOOK_INSTRUCTION
    assert [p.pixels.tobytes() for p in example.user] == [draw(SEEING.scene).tobytes()]
    assert example.scene == SEEING.scene


def test_what_is_looked_for_is_given_and_what_is_seen_is_learned():
    for seed in range(20):
        case = make_case(random.Random(seed))
        example = look_example(case.scene, random.Random(seed), 8)
        lines = "".join(example.answer).splitlines()
        assert 1 <= len(lines) <= 8
        assert len({*lines}) == len(lines)
        assert len(example.answer) % 2 == 0
        assert all(piece.startswith(" ") or not piece for piece in example.answer[1::2])


def test_a_look_says_facts_and_nothing_else():
    for seed in range(20):
        scene = make_case(random.Random(seed)).scene
        lines = "".join(look_example(scene, random.Random(seed), 8).answer).splitlines()
        assert lines == [fact.text for fact in random_facts(scene, random.Random(seed), 8)]


@pytest.mark.parametrize(
    ("learned", "given_before"),
    [(r"(correct|wrong)\n$", r"\.\n$"), (r"^[12]</answer>\n$", r"^<eval></eval>\n<answer>$")],
    ids=["checked", "compared"],
)
def test_what_is_said_of_a_fact_is_given_and_its_judgement_is_learned(learned, given_before):
    total = 0
    for seed in range(20):
        scene = make_case(random.Random(seed)).scene
        answer = look_example(scene, random.Random(seed), 24, judged=True).answer
        assert len(answer) % 2 == 0
        found = [place for place, piece in enumerate(answer) if re.search(learned, piece)]
        total += len(found)
        assert all(place % 2 == 1 for place in found)
        assert all(re.search(given_before, answer[place - 1]) for place in found)
    assert total > 40


def test_two_responses_stand_before_the_fact_as_often_as_after_it():
    before = after = 0
    for seed in range(100):
        answer = look_example(SEEING.scene, random.Random(seed), 12, judged=True).answer
        for said, verdict in itertools.pairwise(
            place for place, piece in enumerate(answer) if re.match("former:|<eval>", piece)
        ):
            if answer[said].startswith("former:"):
                after += verdict - said == 2
                before += verdict - said > 2
    assert before / (before + after) == pytest.approx(0.5, abs=0.1)


def test_the_same_random_state_looks_for_the_same():
    one, two = (look_example(SEEING.scene, random.Random(4), 8).answer for _ in range(2))
    assert one == two
