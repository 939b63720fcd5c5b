from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.toyworld.scene import (
    CELLS,
    COLOURS,
    SHAPES,
    SIDE,
    Scene,
    SceneObject,
    draw,
    random_scene,
)

SEEDS = st.integers(min_value=0, max_value=2**32)
QUICK = settings(deadline=None)
TWO = Scene((SceneObject("circle", "red", 0, 1), SceneObject("square", "blue", 3, 3)))


def centre(row, column):
    cell = SIDE // CELLS
    return column * cell + cell // 2, row * cell + cell // 2


@given(SEEDS)
@QUICK
def test_a_random_scene_has_two_to_seven_objects_in_cells_of_their_own(seed):
    scene = random_scene(random.Random(seed))
    cells = {(o.row, o.column) for o in scene.objects}
    assert 2 <= len(scene.objects) <= 7
    assert len(cells) == len(scene.objects)
    assert cells <= {(row, column) for row in range(CELLS) for column in range(CELLS)}
    assert {o.shape for o in scene.objects} <= set(SHAPES)
    assert {o.colour for o in scene.objects} <= set(COLOURS)


@given(SEEDS)
@QUICK
def test_the_same_random_state_gives_the_same_scene(seed):
    assert random_scene(random.Random(seed)) == random_scene(random.Random(seed))


def test_scenes_differ():
    rng = random.Random(0)
    assert len({random_scene(rng) for _ in range(200)}) >= 199


@pytest.mark.parametrize("size", [1, 2, 3, 7, CELLS * CELLS])
def test_the_number_of_objects_can_be_chosen(size):
    rng = random.Random(0)
    assert {len(random_scene(rng, size, size).objects) for _ in range(20)} == {size}


def test_every_size_shape_and_colour_occurs():
    rng = random.Random(0)
    scenes = [random_scene(rng) for _ in range(300)]
    objects = [o for scene in scenes for o in scene.objects]
    assert {len(scene.objects) for scene in scenes} == {2, 3, 4, 5, 6, 7}
    assert {(o.colour, o.shape) for o in objects} == {(c, s) for c in COLOURS for s in SHAPES}
    assert {(o.row, o.column) for o in objects} == {(r, c) for r in range(4) for c in range(4)}


def test_two_of_one_kind_are_more_frequent_than_by_chance():
    rng = random.Random(0)
    scenes = [random_scene(rng, 5, 5) for _ in range(400)]
    repeated = sum(len({o.name for o in scene.objects}) < 5 for scene in scenes)
    # Five kinds drawn freely out of eighteen repeat in 45 % of scenes.
    assert repeated / len(scenes) > 0.6


def test_objects_are_counted_by_colour_and_shape():
    scene = Scene(
        (
            SceneObject("circle", "red", 0, 0),
            SceneObject("circle", "red", 0, 1),
            SceneObject("square", "red", 1, 0),
            SceneObject("circle", "blue", 1, 1),
        )
    )
    assert scene.count() == 4
    assert scene.count("red") == 3
    assert scene.count(shape="circle") == 3
    assert scene.count("red", "circle") == 2
    assert scene.count("green") == 0
    assert scene.count("red", "triangle") == 0


def test_an_empty_scene_has_nothing_to_count():
    assert Scene(()).count() == 0


def test_the_caption_names_every_cell_row_by_row():
    assert TWO.caption() == (
        "none, red circle, none, none\n"
        "none, none, none, none\n"
        "none, none, none, none\n"
        "none, none, none, blue square"
    )


def test_a_drawing_is_a_small_rgb_picture():
    picture = draw(TWO)
    assert picture.size == (SIDE, SIDE) == (112, 112)
    assert picture.mode == "RGB"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_centre_of_a_drawn_object_has_its_colour(shape, colour):
    picture = draw(Scene((SceneObject(shape, colour, 2, 1),)))
    assert picture.getpixel(centre(2, 1)) == COLOURS[colour]


def test_cells_without_an_object_show_the_background():
    picture = draw(TWO)
    background = picture.getpixel((0, 0))
    taken = {(o.row, o.column) for o in TWO.objects}
    empty = [(r, c) for r in range(CELLS) for c in range(CELLS) if (r, c) not in taken]
    assert background not in COLOURS.values()
    assert {picture.getpixel(centre(*cell)) for cell in empty} == {background}


def test_shapes_differ_in_how_much_they_cover():
    covered = {}
    for shape in SHAPES:
        picture = draw(Scene((SceneObject(shape, "black", 0, 0),)))
        covered[shape] = sum(
            picture.getpixel((x, y)) == COLOURS["black"] for x in range(28) for y in range(28)
        )
    assert covered["square"] > covered["circle"] > covered["triangle"] > 0


def test_the_same_scene_is_drawn_the_same():
    assert draw(TWO).tobytes() == draw(TWO).tobytes()
