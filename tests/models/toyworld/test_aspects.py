from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from models.toyworld.aspects import (
    ASPECTS,
    Aspect,
    Fact,
    Planner,
    colour_fact,
    count_fact,
    description_fact,
    digit_fact,
    existence_fact,
    find_places,
    finding,
    list_objects,
    places_fact,
    relation_fact,
    size_fact,
    with_other_detail,
)
from models.toyworld.phrasing import QUESTIONS
from models.toyworld.scene import (
    CELLS,
    COLOURS,
    DIGITS,
    HELD_OUT,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    arrange,
)

Oracle = Any  # the one of conftest.py

EMPTY = Scene(())
STREET = arrange(
    [
        SceneObject("circle", "red", "small", 0, 3),
        SceneObject("star", "black", "small", 1, 0),
        SceneObject("star", "black", "large", 1, 3),
        SceneObject("square", "blue", "large", 3, 3),
        SceneObject("triangle", "green", "large", 3, 0),
        SceneObject("7", "red", "small", 2, 2),
        SceneObject("3", "black", "small", 2, 1),
        SceneObject("4", "black", "large", 0, 0),
    ]
)
RED_CIRCLE, BLUE_SQUARE, GREEN_TRIANGLE = (
    ("circle", "red"),
    ("square", "blue"),
    ("triangle", "green"),
)
BLACK_STAR, RED_STAR = ("star", "black"), ("star", "red")
COMPOSED = [family for family in ASPECTS if family != "description"]
every_pair = pytest.mark.parametrize(("one", "two"), list(itertools.permutations(COMPOSED, 2)))


def planned(family: str, number: int, held_out: bool = False) -> Iterator[tuple[Aspect, Scene]]:
    rng = random.Random(f"{family}/{held_out}")
    for _ in range(number):
        planner = Planner(rng, held_out)
        aspect = planner.plan(family)
        scene = planner.scene([aspect])
        assert scene is not None, "a single aspect always fits"
        yield aspect, scene


# --- facts -----------------------------------------------------------------------------------


def test_a_count_is_of_one_shape_in_one_colour():
    assert count_fact(STREET, *BLACK_STAR) == Fact(
        ("black stars:", " upper A, upper D: 2"), "2", DIGITS[1:6], "count"
    )
    assert count_fact(STREET, *RED_STAR).answer == "0"
    assert count_fact(EMPTY, *RED_STAR).text == "red stars: nowhere: 0"


def test_a_colour_is_told_where_there_is_exactly_one_of_the_shape():
    others = ("red", "green", "yellow", "purple", "black")
    assert colour_fact(STREET, "circle") == Fact(
        ("circle colour:", " red"), "red", others, "colour"
    )
    assert colour_fact(STREET, "star") is None
    assert colour_fact(EMPTY, "circle") is None


def test_existence_needs_shape_and_colour_in_one_thing():
    assert existence_fact(STREET, *RED_CIRCLE) == Fact(
        ("a red circle:", " top D: yes"), "yes", ("yes", "no"), "existence"
    )
    assert existence_fact(STREET, *RED_STAR) == Fact(
        ("a red star:", " nowhere: no"), "no", ("yes", "no"), "existence"
    )
    assert existence_fact(STREET, *BLACK_STAR).text == "a black star: upper A: yes"
    assert existence_fact(EMPTY, *RED_STAR).answer == "no"


def test_a_relation_names_both_places_and_then_says_which_comes_first():
    above = relation_fact(STREET, RED_CIRCLE, BLUE_SQUARE, vertical=True)
    below = relation_fact(STREET, BLUE_SQUARE, RED_CIRCLE, vertical=True)
    left = relation_fact(STREET, GREEN_TRIANGLE, RED_CIRCLE, vertical=False)
    right = relation_fact(STREET, RED_CIRCLE, GREEN_TRIANGLE, vertical=False)
    assert above is not None
    assert below is not None
    assert left is not None
    assert right is not None
    assert above.text == "red circle row top, blue square row bottom: above"
    assert below.text == "blue square row bottom, red circle row top: below"
    assert left.text == "green triangle column A, red circle column D: to the left"
    assert right.text == "red circle column D, green triangle column A: to the right"
    assert above.alternatives == below.alternatives == ("above", "below")
    assert left.alternatives == right.alternatives == ("to the left", "to the right")
    assert [fact.answer for fact in (above, below, left, right)] == [
        "above",
        "below",
        "to the left",
        "to the right",
    ]


@pytest.mark.parametrize(
    ("one", "two", "vertical"),
    [
        (RED_CIRCLE, BLUE_SQUARE, False),  # one column
        (BLUE_SQUARE, GREEN_TRIANGLE, True),  # one row
        (RED_CIRCLE, BLACK_STAR, True),  # two stars
        (RED_STAR, RED_CIRCLE, True),  # no such star
    ],
)
def test_a_relation_is_not_told_where_the_scene_leaves_it_open(
    one: tuple[str, str], two: tuple[str, str], vertical: bool
):
    assert relation_fact(STREET, one, two, vertical=vertical) is None
    assert relation_fact(STREET, two, one, vertical=vertical) is None


def test_a_size_is_compared_where_there_is_one_of_each_and_they_differ():
    fact = size_fact(STREET, RED_CIRCLE, BLUE_SQUARE)
    turned = size_fact(STREET, BLUE_SQUARE, RED_CIRCLE)
    assert fact is not None
    assert turned is not None
    assert fact.text == "red circle small, blue square large: blue square"
    assert turned.text == "blue square large, red circle small: blue square"
    assert fact.answer == turned.answer == "blue square"
    assert set(fact.alternatives) == {"red circle", "blue square"}
    assert size_fact(STREET, BLUE_SQUARE, GREEN_TRIANGLE) is None
    assert size_fact(STREET, RED_CIRCLE, BLACK_STAR) is None
    assert size_fact(STREET, RED_CIRCLE, RED_STAR) is None


def test_a_digit_is_read_where_there_is_one_of_its_colour():
    assert digit_fact(STREET, "red") == Fact(("red digit:", " 7"), "7", tuple("12345789"), "digit")
    assert digit_fact(STREET, "black") is None
    assert digit_fact(STREET, "green") is None


def test_no_claim_to_choose_from_is_a_combination_kept_from_training():
    for thing, colour in itertools.product((*SHAPES, *DIGITS), COLOURS):
        scene = arrange([SceneObject(thing, colour, "small", 0, 0)])
        fact = digit_fact(scene, colour) if thing in DIGITS else colour_fact(scene, thing)
        assert fact is not None
        claimed = fact.alternatives
        kinds = {(c, colour) if thing in DIGITS else (thing, c) for c in claimed}
        assert len(kinds) == len(claimed) > 2
        assert not kinds & HELD_OUT
        assert (fact.answer in claimed) == ((thing, colour) not in HELD_OUT)


def test_a_description_lists_everything_in_reading_order():
    two = arrange([STREET.objects[5], STREET.objects[1]])
    assert list_objects(two) == "small red circle, small red digit 7"
    assert description_fact(two) == Fact(
        ("all:", " top D small red circle, lower C small red digit 7"), list_objects(two)
    )
    assert description_fact(EMPTY).text == "all: "


def test_of_each_thing_its_place_is_told_or_that_it_is_nowhere():
    things = ["small red circle", "large red circle", "large black digit 4"]
    assert places_fact(STREET, things) == Fact(
        (
            *("small red circle", " top D"),
            *(", large red circle", " nowhere"),
            *(", large black digit 4", " top A"),
        ),
        "small red circle top D, large red circle nowhere, large black digit 4 top A",
    )
    assert places_fact(STREET, things[::-1]).text == (
        "large black digit 4 top A, large red circle nowhere, small red circle top D"
    )


def test_of_equal_things_each_has_a_place_of_its_own_as_far_as_there_are():
    twins = [SceneObject("star", "black", "small", row, column) for row, column in ((2, 1), (0, 3))]
    scene = arrange([*twins, SceneObject("star", "black", "large", 1, 1)])
    expected = ["top D", "lower B", "nowhere", "nowhere"]
    for claimed in range(1, 5):
        things = ["small black star"] * claimed
        places = expected[:claimed]
        assert find_places(things, description_fact(scene).text) == places
        assert places_fact(scene, things).pieces[1::2] == tuple(f" {place}" for place in places)


def test_in_an_empty_scene_everything_is_nowhere_and_nothing_has_no_place():
    assert places_fact(EMPTY, ["small red circle"]).text == "small red circle nowhere"
    assert places_fact(EMPTY, []) == places_fact(STREET, []) == Fact((), "")
    assert find_places(["small red circle"], "all: ") == ["nowhere"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("size", SIZES)
def test_one_detail_is_another_and_never_a_combination_kept_from_training(
    shape: str, colour: str, size: str
):
    rng, old = random.Random(f"{shape}/{colour}/{size}"), SceneObject(shape, colour, size, 2, 1)
    changed: Counter[str] = Counter()
    for _ in range(60):
        new = with_other_detail(old, rng)
        (detail,) = [
            name
            for name in ("shape", "colour", "size", "row", "column")
            if getattr(old, name) != getattr(new, name)
        ]
        changed[detail] += 1
        assert not new.is_held_out
    # Another size alone would leave what is kept from training as it is.
    details = ["shape", "colour", *["size"] * (not old.is_held_out)]
    assert sorted(changed) == sorted(details)


def test_the_pieces_of_a_fact_make_up_its_text():
    for fact in (count_fact(STREET, *RED_STAR), colour_fact(STREET, "circle")):
        assert fact is not None
        assert fact.text == "".join(fact.pieces)


@pytest.mark.parametrize(
    ("family", "claim", "truth", "found"),
    [
        ("count", "3", "2", "number 3, is 2: wrong"),
        ("relation", "to the left", "to the left", "position to the left, is to the left: correct"),
        ("existence", "no", "yes", "presence no, is yes: wrong"),
    ],
)
def test_a_finding_sets_the_truth_beside_the_claim(family: str, claim: str, truth: str, found: str):
    assert finding(family, claim, truth) == found


# --- plans -----------------------------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("family", ASPECTS)
def test_a_planned_scene_shows_the_true_claim_and_not_the_other(
    oracle: Oracle, family: str, held_out: bool
):
    for aspect, scene in planned(family, 150, held_out):
        question = QUESTIONS[family].trained[0].format(**aspect.names)
        (asked,) = oracle.question(question).asked
        fact = aspect.look(scene)
        assert aspect.family == family
        assert aspect.truth == aspect.claims[0] != aspect.claims[1]
        assert oracle.truth(scene, asked) == aspect.truth
        assert fact is not None
        assert fact.answer == aspect.truth
        assert set(aspect.objects) <= set(scene.objects)
        assert scene == arrange(list(scene.objects))


@pytest.mark.parametrize("family", ASPECTS)
def test_either_claim_of_a_pair_is_as_likely_to_be_true(family: str):
    larger = Counter(a.claims[0] > a.claims[1] for a, _ in planned(family, 1200))
    assert larger[True] / 1200 == pytest.approx(0.5, abs=0.06)


def test_counts_are_close_and_all_of_them_come_up():
    pairs = {a.claims for a, _ in planned("count", 600)}
    assert pairs == {
        (str(a), str(b)) for a in range(1, 6) for b in range(1, 6) if 0 < abs(a - b) <= 2
    }


def test_a_wrong_description_differs_in_one_detail_or_one_thing():
    for aspect, scene in planned("description", 300):
        true, false = (claim.split(", ") for claim in aspect.claims)
        assert len(scene.objects) == len(true) <= 3
        if len(true) == len(false):
            (pair,) = [(a, b) for a, b in zip(true, false, strict=True) if a != b]
            apart = [a != b for a, b in zip(*(thing.split() for thing in pair), strict=True)]
            assert sum(apart) == 1
        else:
            less, more = sorted((Counter(true), Counter(false)), key=Counter[str].total)
            assert (more - less).total() == 1
            assert not less - more


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("family", COMPOSED)
def test_one_to_five_other_things_stand_around_what_is_asked_about(family: str, held_out: bool):
    extra = Counter(len(s.objects) - len(a.objects) for a, s in planned(family, 400, held_out))
    assert set(extra) == {1, 2, 3, 4, 5}
    assert min(extra.values()) > 40


@pytest.mark.parametrize("held_out", [False, True])
def test_nothing_kept_from_training_is_planned_unless_it_is_asked_for(held_out: bool):
    for family in ASPECTS:
        kinds = {
            (o.shape, o.colour)
            for _, scene in planned(family, 100, held_out)
            for o in scene.objects
        }
        assert bool(kinds & HELD_OUT) == held_out


def test_aspects_of_one_plan_stand_in_cells_of_their_own():
    rng = random.Random(0)
    for one, two in itertools.permutations(COMPOSED, 2):
        for _ in range(20):
            planner = Planner(rng)
            aspects = [planner.plan(one), planner.plan(two)]
            cells = [(o.row, o.column) for a in aspects for o in a.objects]
            assert len(set(cells)) == len(cells)
            assert all(0 <= row < CELLS and 0 <= column < CELLS for row, column in cells)


def test_aspects_that_contradict_each_other_have_no_scene():
    rng = random.Random(0)
    found: Counter[bool] = Counter()
    for _ in range(300):
        planner = Planner(rng)
        aspects = [planner.plan("digit"), planner.plan("digit")]
        scene = planner.scene(aspects)
        colours = {aspect.names["colour"] for aspect in aspects}
        assert (scene is None) == (len(colours) == 1)
        found[scene is None] += 1
    assert set(found) == {False, True}


@every_pair
@pytest.mark.parametrize("held_out", [False, True])
def test_two_aspects_of_different_families_never_clash_and_are_both_shown(
    oracle: Oracle, one: str, two: str, held_out: bool
):
    rng = random.Random(f"{one}/{two}/{held_out}")
    for _ in range(40):
        planner = Planner(rng, held_out)
        aspects = [planner.plan(one), planner.plan(two)]
        scene = planner.scene(aspects)
        assert scene is not None
        for aspect in aspects:
            question = QUESTIONS[aspect.family].trained[0].format(**aspect.names)
            (asked,) = oracle.question(question).asked
            assert oracle.truth(scene, asked) == aspect.truth


@every_pair
def test_two_aspects_never_ask_about_one_shape(one: str, two: str):
    rng = random.Random(f"{one}/{two}")
    for _ in range(60):
        planner = Planner(rng)
        asked = [planner.plan(family) for family in (one, two)]
        first, second = (named(aspect) for aspect in asked)
        assert not first & second


def named(aspect: Aspect) -> set[str]:
    """The shapes that an aspect's question names."""
    return {word for name in aspect.names.values() for word in name.split()} & set(SHAPES)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("beside", [family for family in COMPOSED if family != "existence"])
def test_a_thing_is_there_as_often_as_not_whatever_is_asked_beside_it(beside: str, held_out: bool):
    rng, number = random.Random(f"{beside}/{held_out}"), 3000
    truths: Counter[str] = Counter()
    for at in range(number):
        planner = Planner(rng, held_out)
        families = ("existence", beside) if at % 2 else (beside, "existence")
        aspects = [planner.plan(family) for family in families]
        if planner.scene(aspects) is not None:
            truths.update(a.truth for a in aspects if a.family == "existence")
    assert truths.total() == number
    assert abs(truths["yes"] / number - 0.5) < 4 * 0.5 / number**0.5


def test_the_same_random_state_gives_the_same_plan():
    for family in ASPECTS:
        one, two = (next(planned(family, 1)) for _ in range(2))
        assert one[1] == two[1]
        assert (one[0].names, one[0].claims) == (two[0].names, two[0].claims)


def test_an_unknown_family_is_an_error():
    with pytest.raises(KeyError, match="smell"):
        Planner(random.Random(0)).plan("smell")
