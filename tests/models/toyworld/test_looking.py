from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from models.toyworld import CaseOptions, make_case
from models.toyworld.aspects import Fact
from models.toyworld.looking import cell_words, random_facts
from models.toyworld.phrasing import QUESTIONS, STATEMENTS, TOPICS
from models.toyworld.scene import (
    CELLS,
    COLUMNS,
    HELD_OUT,
    ROWS,
    Scene,
    SceneObject,
    arrange,
    random_object,
)
from models.training.practice import look_example

Oracle = Any  # the one of conftest.py

EMPTY = Scene(())
FULL = arrange(
    [
        random_object(random.Random(f"{row}/{column}"), (row, column), held_out=False)
        for row in range(CELLS)
        for column in range(CELLS)
    ]
)
PLACE = f"(?:{'|'.join(ROWS)}) (?:{'|'.join(COLUMNS)})"
THING = rf"(?:small|large) \w+ \w+ (?:nowhere|{PLACE})"
LINES = {
    "count": rf"(?P<kind>\w+ \w+)s: (?:nowhere|{PLACE}(?:, {PLACE})*): \d+",
    "colour": r"(?P<shape>\w+) colour: \w+",
    "existence": rf"a (?P<kind>\w+ \w+): (?:nowhere: no|{PLACE}: yes)",
    "relation": r"(?P<one>\w+ \w+) (?P<line>row|column) \w+, (?P<two>\w+ \w+) (?P=line) \w+: .+",
    "size": r"(?P<one>\w+ \w+) (?:small|large), (?P<two>\w+ \w+) (?:small|large): .+",
    "digit": r"(?P<colour>\w+) digit: \d",
    "description": r"all: .*",
    "places": rf"{THING}(?:, {THING}){{0,2}}",
    "thing": r"(?P<name>\w+ (?:\w+|digit \d)): (?:small|large), row \w+, column \w",
}

LISTS = ("description", "places")


def scenes(number: int, held_out: bool = False) -> list[Scene]:
    rng = random.Random(f"scenes/{held_out}")
    return [make_case(rng, CaseOptions(held_out=held_out)).scene for _ in range(number)]


def read(fact: Fact) -> tuple[str, dict[str, str]]:
    """The family of a fact, and what it is about."""
    ((family, match),) = [
        (family, match)
        for family, line in LINES.items()
        if (match := re.fullmatch(line, fact.text))
    ]
    return family, match.groupdict()


def true_fact(oracle: Oracle, scene: Scene, fact: Fact) -> tuple[str, str]:
    """What a fact should say, and what its answer should be."""
    family, names = read(fact)
    if family == "thing":
        (o,) = [o for o in scene.objects if o.name == names["name"]]
        answer = f"{o.size}, row {ROWS[o.row]}, column {COLUMNS[o.column]}"
        return f"{o.name}: {answer}", answer
    if family == "places":
        things = things_of(fact)
        places = oracle.places(scene, things)
        said = ", ".join(f"{thing} {place}" for thing, place in zip(things, places, strict=True))
        return said, said
    if family == "relation":
        vertical = names["line"] == "row"
        names["before"], names["after"] = (
            ("above", "below") if vertical else ("to the left", "to the right of")
        )
    (asked,) = oracle.question(QUESTIONS[family].trained[0].format(**names)).asked
    return oracle.fact(scene, asked), oracle.truth(scene, asked)


def things_of(fact: Fact) -> list[str]:
    """The things whose places a fact tells."""
    return [looked_for.removeprefix(", ") for looked_for in fact.pieces[::2]]


@pytest.mark.parametrize("held_out", [False, True])
def test_every_fact_agrees_with_the_scene(oracle: Oracle, held_out: bool):
    rng = random.Random(0)
    families: Counter[str] = Counter()
    for scene in [*scenes(250, held_out), EMPTY, FULL]:
        for fact in random_facts(scene, rng, 12):
            assert (fact.text, fact.answer) == true_fact(oracle, scene, fact)
            families[read(fact)[0]] += 1
    assert set(families) == set(LINES)


def test_pieces_are_looked_for_and_seen_in_turn():
    rng = random.Random(1)
    for scene in [*scenes(250), EMPTY, FULL]:
        for fact in random_facts(scene, rng, 12):
            looked_for, seen = fact.pieces[::2], fact.pieces[1::2]
            assert len(looked_for) == len(seen) > 0
            assert all(piece.startswith(" ") for piece in seen)
            assert not any(piece.startswith(" ") or piece.endswith(" ") for piece in looked_for)
            assert "".join(fact.pieces) == fact.text
            assert fact.pieces[-1].endswith(fact.answer) or read(fact)[0] in LISTS
            assert "\n" not in fact.text


def test_facts_differ_and_are_no_more_than_asked_for():
    rng = random.Random(2)
    for number in (0, 1, 5, 40):
        for scene in scenes(30):
            texts = [fact.text for fact in random_facts(scene, rng, number)]
            assert len(set(texts)) == len(texts) <= number


def test_the_same_random_state_gives_the_same_facts():
    for scene in scenes(20):
        one, two = (random_facts(scene, random.Random(3), 12) for _ in range(2))
        assert one == two


def test_a_training_scene_has_no_fact_about_a_combination_kept_from_training(oracle: Oracle):
    rng = random.Random(4)
    for scene in scenes(300):
        for fact in random_facts(scene, rng, 12):
            assert oracle.kept_from_training(fact.text) == set()


def test_a_scene_with_combinations_kept_from_training_has_facts_about_the_others(oracle: Oracle):
    rng = random.Random(5)
    about: Counter[str] = Counter()
    options = CaseOptions("image", "description", held_out=True)
    small = [make_case(rng, options).scene for _ in range(60)]
    for scene in [*scenes(300, held_out=True), *small]:
        for fact in random_facts(scene, rng, 12):
            assert oracle.kept_from_training(fact.text) == set()
            about[read(fact)[0]] += 1
    assert about.total() > 500
    assert set(about) >= set(LINES) - {"description"}


def test_a_small_scene_is_described_unless_a_combination_in_it_is_kept_from_training():
    red = SceneObject("circle", "red", "small", 0, 0)
    kept = [SceneObject(*kind, "large", 3, 3) for kind in sorted(HELD_OUT)]
    described = {read(fact)[0] for fact in random_facts(arrange([red]), random.Random(8), 200)}
    assert "description" in described
    for o in kept:
        facts = random_facts(arrange([red, o]), random.Random(8), 200)
        assert "description" not in {read(fact)[0] for fact in facts}


@pytest.mark.parametrize(("things", "described"), [(0, True), (4, True), (5, False)])
def test_a_scene_of_more_than_four_things_is_not_described(things: int, described: bool):
    objects = [SceneObject("circle", "red", "small", n % 4, n // 4) for n in range(things)]
    facts = random_facts(arrange(objects), random.Random(8), 200)
    assert ("description" in {read(fact)[0] for fact in facts}) == described


def test_of_a_scene_with_nothing_else_only_what_is_missing_is_said():
    for kind in sorted(HELD_OUT):
        scene = arrange([SceneObject(*kind, "large", 3, 3)])
        facts = random_facts(scene, random.Random(9), 60)
        assert {read(fact)[0] for fact in facts} == {"existence"}
        assert {fact.answer for fact in facts} == {"no"}


def test_what_is_there_and_what_is_not_both_come_up_and_so_does_every_number():
    rng = random.Random(6)
    answers: dict[str, Counter[str]] = {"existence": Counter(), "count": Counter()}
    for scene in scenes(400):
        for fact in random_facts(scene, rng, 12):
            family, _ = read(fact)
            if family in answers:
                answers[family][fact.answer] += 1
    assert 0.42 < answers["existence"]["yes"] / answers["existence"].total() < 0.58
    assert set(answers["count"]) >= {"1", "2", "3", "4", "5"}


def test_things_are_counted_the_more_often_the_more_of_them_there_are():
    three = [SceneObject("circle", "red", "small", 0, column) for column in range(3)]
    scene = arrange([*three, SceneObject("star", "black", "small", 3, 3)])
    rng = random.Random(10)
    facts = [fact for _ in range(3000) for fact in random_facts(scene, rng, 1)]
    counted = Counter(fact.answer for fact in facts if read(fact)[0] == "count")
    assert set(counted) == {"1", "3"}
    assert counted["3"] > 20 * counted["1"]


@pytest.mark.parametrize("held_out", [False, True])
def test_half_of_the_things_looked_for_are_there_and_the_others_but_for_a_detail(
    oracle: Oracle, held_out: bool
):
    rng = random.Random(13)
    there: Counter[bool] = Counter()
    numbers: Counter[int] = Counter()
    for scene in scenes(600, held_out):
        for fact in random_facts(scene, rng, 12):
            if read(fact)[0] == "places":
                things = things_of(fact)
                numbers[len(things)] += 1
                assert oracle.kept_from_training(fact.text) == set()
                assert not any("digit" in thing for thing in things)
                seen = [o for o in scene.objects if not o.is_digit]
                shown = [f"{o.size} {o.name}".split() for o in seen]
                for thing, place in zip(things, oracle.places(scene, things), strict=True):
                    there[place != "nowhere"] += 1
                    apart = [sum(map(str.__ne__, thing.split(), other)) for other in shown]
                    assert min(apart) == (place == "nowhere") or things.count(thing) > 1
    assert set(numbers) == {1, 2, 3}
    assert there.total() > 1000
    # A thing with another detail may be there by chance.
    assert 0.45 < there[True] / there.total() < 0.6


def test_an_empty_scene_shows_nothing(oracle: Oracle):
    facts = random_facts(EMPTY, random.Random(7), 60)
    assert {read(fact)[0] for fact in facts} <= {"existence", "description"}
    assert {fact.answer for fact in facts} <= {"no", ""}


# --- facts with responses that are judged ----------------------------------------------------


def judged(oracle: Oracle, scenes: list[Scene]) -> tuple[Counter[Any], Counter[Any]]:
    """Claims that are checked, by family and correctness, and verdicts, by family and label.

    Each is found to be what the lines say it is.
    """
    rng = random.Random(11)
    checks: Counter[Any] = Counter()
    verdicts: Counter[Any] = Counter()
    for scene in scenes:
        fact = statement = ""
        said: list[str] = []
        for line in "".join(look_example(scene, rng, 12, judged=True).answer).splitlines():
            if line.startswith(("former: ", "latter: ")):
                said.append(line.partition(": ")[2])
            elif line.endswith("."):
                statement = line
            elif match := re.fullmatch(r"(\w+) (.+), is (.+): (correct|wrong)", line):
                topic, claim, truth, found_to_be = match.groups()
                family = family_of(fact, truth)
                assert topic == TOPICS[family]
                assert (claim == truth) == (found_to_be == "correct")
                assert_may_be_trained_on(oracle, fact, statement, truth, claim)
                checks[family, claim == truth] += 1
            elif match := re.fullmatch(r"<answer>([12])</answer>", line):
                truth = fact.rpartition(": ")[2]
                family = family_of(fact, truth)
                right = [text in statements(family, truth) for text in said]
                assert right == ([True, False] if match[1] == "1" else [False, True])
                (claim,) = {claims_of(family, text) for text in said} - {truth}
                assert_may_be_trained_on(oracle, fact, said[right.index(False)], truth, claim)
                verdicts[family, match[1]] += 1
                said = []
            elif line != "<eval></eval>":
                fact = line
    return checks, verdicts


def family_of(fact: str, truth: str) -> str:
    assert fact.endswith(f": {truth}")
    return read(Fact((fact,), truth))[0]


def statements(family: str, claim: str) -> list[str]:
    return [template.format(claim) for template in STATEMENTS[family]]


def claims_of(family: str, text: str) -> str:
    (claim,) = {
        found[1]
        for template in STATEMENTS[family]
        if (found := re.fullmatch(re.escape(template).replace(r"\{\}", "(.+)"), text))
    }
    return claim


def assert_may_be_trained_on(
    oracle: Oracle, fact: str, statement: str, truth: str, claim: str
) -> None:
    assert statement in statements(family_of(fact, truth), claim)
    said = f"{fact.removesuffix(truth)}{claim}"
    assert oracle.kept_from_training(f"{fact}\n{said}\n{claim}") == set()


@pytest.mark.parametrize("held_out", [False, True])
def test_half_of_what_is_judged_is_right_and_half_of_the_verdicts_are_1(
    oracle: Oracle, held_out: bool
):
    checks, verdicts = judged(oracle, scenes(500, held_out))
    for found, one, other in ((checks, True, False), (verdicts, "1", "2")):
        families = {family for family, _ in found}
        assert families == {"count", "colour", "existence", "relation", "size", "digit"}
        for family in families:
            yes, no = found[family, one], found[family, other]
            assert abs(yes / (yes + no) - 0.5) < 4 * 0.5 / (yes + no) ** 0.5


def test_no_claim_that_is_judged_is_kept_from_training_in_any_scene(oracle: Oracle):
    rng = random.Random(12)
    things = [[random_object(rng, (1, c), held_out=True) for c in range(4)] for _ in range(300)]
    checks, verdicts = judged(oracle, [arrange(objects) for objects in things])
    assert min(checks.total(), verdicts.total()) > 500


# --- cells -----------------------------------------------------------------------------------


def test_each_cell_is_named_by_its_place_and_by_what_it_shows():
    scene = arrange(
        [SceneObject("circle", "red", "small", 0, 1), SceneObject("7", "black", "large", 3, 2)]
    )
    words = cell_words(scene)
    assert len(words) == CELLS * CELLS
    assert words[0] == ["top", "A"]
    assert words[1] == ["top", "B", "red", "circle", "small"]
    assert words[14] == ["bottom", "C", "black", "7", "large", "digit"]
    assert [word for n, cell in enumerate(words) if n not in (1, 14) for word in cell[2:]] == []


def test_every_cell_of_a_full_scene_is_named():
    for o, words in zip(FULL.objects, cell_words(FULL), strict=True):
        assert words[:5] == [ROWS[o.row], COLUMNS[o.column], o.colour, o.shape, o.size]
        assert words[5:] == (["digit"] if o.is_digit else [])
    assert cell_words(EMPTY) == [[row, column] for row in ROWS for column in COLUMNS]
