from __future__ import annotations

import itertools
import random
import re

import pytest

from models.judgement import verdict_prefix
from models.neutralise import Neutraliser
from models.prompts import JUDGE_LAYOUTS, PROXY_LAYOUTS, read_prompts
from models.rubric import read_criteria
from models.toyworld import STRATA, CaseOptions, make_case
from models.toyworld.looking import random_facts
from models.toyworld.phrasing import NAMES
from models.toyworld.scene import draw
from models.training.practice import LOOK_INSTRUCTION, look_example, verdict_example
from models.training.tiny import PROMPTS_DIR

PROMPTS = read_prompts(PROMPTS_DIR, (*JUDGE_LAYOUTS, *PROXY_LAYOUTS))
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
    for seed in range(20):
        scene = make_case(random.Random(seed)).scene
        answer = look_example(scene, random.Random(seed), 24, judged=True).answer
        assert len(answer) % 2 == 0
        found = [place for place, piece in enumerate(answer) if re.search(learned, piece)]
        assert found
        assert all(place % 2 == 1 for place in found)
        assert all(re.search(given_before, answer[place - 1]) for place in found)


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


# Deciding


def decided(seed, frame, prompts=PROMPTS, **options):
    rng = random.Random(seed)
    case = make_case(rng, CaseOptions(**options))
    return case, verdict_example(case, prompts, Neutraliser(()), rng, frame)


def text_of(example):
    return "".join((example.system, *example.user, *example.answer))


@pytest.mark.parametrize("frame", [0.0, 0.5, 1.0])
def test_the_verdict_alone_is_learned_and_nothing_is_shown(frame):
    for seed in range(100):
        _, example = decided(seed, frame)
        assert all(isinstance(part, str) for part in example.user)
        nothing, none_learned, given, learned = example.answer
        assert (nothing, none_learned) == ("", "")
        assert given.endswith(verdict_prefix(None))
        assert re.fullmatch("[12]</answer>", learned)


def test_without_a_frame_stand_a_fact_and_two_responses():
    for seed in range(100):
        case, example = decided(seed, 0, stratum="image", family="digit")
        assert example.system == LOOK_INSTRUCTION
        assert example.user == ("",)
        lines = example.answer[2].splitlines()
        said = [f"{name}: {text}" for name, text in zip(NAMES, case.responses, strict=True)]
        fact = f"{case.priorities[0].standard}."
        end = verdict_prefix(None).splitlines()
        assert lines in ([fact, *said, *end], [*said, fact, *end])


def test_a_whole_frame_is_the_prompt_of_serving():
    whole = 0
    for seed in range(4000):
        case, example = decided(seed, 1, {"write_rubric": PROMPTS["write_rubric"]})
        prompt = PROMPTS["write_rubric"].fill(case.labeled().comparison, Neutraliser(()))
        texts = [part for part in prompt.user if isinstance(part, str)]
        if example.user != ("".join(texts).strip("\n"),) or example.system != prompt.system:
            continue
        whole += example.answer[2] == verdict_prefix(case.rubric)
    assert whole > 5


def test_the_frame_grows():
    means = []
    for frame in (0, 0.25, 0.5, 1):
        lengths = [len(text_of(decided(seed, frame)[1])) for seed in range(300)]
        means.append(sum(lengths) / len(lengths))
    assert means == sorted(means)
    assert means[-1] > 1.3 * means[0]


@pytest.mark.parametrize("stratum", STRATA)
@pytest.mark.parametrize("frame", [0.0, 0.6, 1.0])
def test_both_responses_and_what_decides_are_always_there(stratum, frame):
    for seed in range(200):
        rng = random.Random(seed)
        case = make_case(rng, CaseOptions(stratum=stratum))
        text = text_of(verdict_example(case, PROMPTS, Neutraliser(()), rng, frame))
        assert all(response in text for response in case.responses)
        if case.first_decides and text.endswith(f"{case.label}</answer>"):
            assert case.priorities[0].standard in text
        else:
            assert case.priorities[1].standard in text


def test_two_criteria_without_weights_never_stand_beside_each_other():
    alone = 0
    for seed in range(500):
        case, example = decided(seed, 0.7)
        lines = "\n".join((*example.user, *example.answer)).splitlines()
        bare = [m.standard for m in case.priorities if f"{m.standard}." in lines]
        assert len(bare) <= 1
        if bare:
            assert not any(criterion for line in lines for criterion in read_criteria(line))
        alone += len(bare)
    assert alone > 100


def test_about_half_of_given_priorities_contradict_the_question():
    given = {"rubric_given": PROMPTS["rubric_given"]}
    kept = 0
    for seed in range(200):
        case, example = decided(seed, 1, given, stratum="rubric")
        kept += example.answer[3].startswith(str(case.label))
    assert 70 < kept < 130


def test_the_same_random_state_decides_the_same():
    assert decided(7, 0.8) == decided(7, 0.8)
