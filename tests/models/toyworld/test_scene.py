from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from PIL import Image, ImageChops

from models.toyworld.scene import (
    CELLS,
    COLOURS,
    COLUMNS,
    DIGITS,
    HELD_OUT,
    ROWS,
    SHAPES,
    SIDE,
    SIZES,
    Scene,
    SceneObject,
    arrange,
    draw,
    random_object,
)

CELL = SIDE // CELLS
GRID = [(row, column) for row in range(CELLS) for column in range(CELLS)]
EMPTY = Scene(())
TWO = arrange(
    [SceneObject("square", "blue", "large", 3, 3), SceneObject("7", "red", "small", 0, 1)]
)


def centre(row: int, column: int) -> tuple[int, int]:
    return column * CELL + CELL // 2, row * CELL + CELL // 2


def box(row: int, column: int) -> tuple[int, int, int, int]:
    return column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL


def one(shape: str, colour: str = "black", size: str = "large") -> Image.Image:
    """A drawing of one thing, in the third row and the second column."""
    return draw(Scene((SceneObject(shape, colour, size, 2, 1),)))


def changed(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of what is not bare paper."""
    return ImageChops.difference(picture, draw(EMPTY)).getbbox()


def difference(one: Image.Image, two: Image.Image) -> float:
    """Mean absolute difference, 0..255."""
    apart = ImageChops.difference(one, two).convert("L").tobytes()
    return sum(apart) / len(apart)


def full_scene(seed: int) -> Scene:
    rng = random.Random(seed)
    return arrange([random_object(rng, cell, held_out=True) for cell in GRID])


# --- scenes ----------------------------------------------------------------------------------


def test_a_scene_is_in_reading_order_however_it_was_arranged():
    objects = [SceneObject("star", "red", "small", *cell) for cell in GRID]
    random.Random(0).shuffle(objects)
    assert [(o.row, o.column) for o in arrange(objects).objects] == GRID


@pytest.mark.parametrize("other", [("circle", "red", "small"), ("7", "blue", "large")])
def test_two_objects_cannot_share_a_cell(other: tuple[str, str, str]):
    first = SceneObject("circle", "red", "small", 1, 2)
    with pytest.raises(ValueError, match="two objects share a cell"):
        arrange([first, SceneObject("star", "black", "large", 0, 0), SceneObject(*other, 1, 2)])


def test_a_scene_may_be_empty_or_full():
    assert arrange([]) == EMPTY
    assert EMPTY.count() == 0
    assert full_scene(0).count() == CELLS * CELLS


def test_objects_are_found_and_counted_by_shape_and_colour():
    scene = arrange(
        [
            SceneObject("circle", "red", "small", 0, 0),
            SceneObject("circle", "red", "large", 0, 1),
            SceneObject("square", "red", "small", 1, 0),
            SceneObject("circle", "blue", "small", 1, 1),
            SceneObject("7", "red", "small", 2, 2),
        ]
    )
    assert scene.count() == 5
    assert scene.count("circle") == 3
    assert scene.count(colour="red") == 4
    assert scene.count("circle", "red") == 2
    assert scene.count("triangle") == scene.count("square", "blue") == 0
    assert [(o.row, o.column) for o in scene.find("circle")] == [(0, 0), (0, 1), (1, 1)]
    assert [o.shape for o in scene.digits] == ["7"]


def test_a_thing_is_called_by_its_colour_and_shape():
    assert [o.name for o in TWO.objects] == ["red digit 7", "blue square"]


def test_held_out_combinations_are_known_by_shape_and_colour():
    assert SceneObject("circle", "blue", "small", 0, 0).is_held_out
    assert SceneObject("0", "red", "large", 3, 3).is_held_out
    assert not SceneObject("circle", "red", "small", 0, 0).is_held_out
    assert not SceneObject("0", "blue", "small", 0, 0).is_held_out


def test_every_place_has_a_name_of_its_own():
    assert len({*ROWS, *COLUMNS}) == 2 * CELLS
    places = [SceneObject("star", "red", "small", *cell).place for cell in GRID]
    assert len(set(places)) == len(GRID)
    assert (places[0], places[6], places[-1]) == ("top A", "upper C", "bottom D")


# --- drawing lots ----------------------------------------------------------------------------


def test_a_random_object_has_no_combination_kept_from_training_unless_allowed():
    rng = random.Random(0)
    kept = [random_object(rng, (0, 0), held_out=False) for _ in range(3000)]
    any_kind = [random_object(rng, (0, 0), held_out=True) for _ in range(3000)]
    every = {(shape, colour) for shape in (*SHAPES, *DIGITS) for colour in COLOURS}
    assert {(o.shape, o.colour) for o in kept} == every - HELD_OUT
    assert {(o.shape, o.colour) for o in any_kind} == every
    assert {o.size for o in kept} == set(SIZES)


def test_a_random_object_stands_where_it_was_put_and_digits_can_be_refused():
    rng = random.Random(1)
    objects = [random_object(rng, (2, 3), held_out=True, digits=False) for _ in range(500)]
    assert {(o.row, o.column) for o in objects} == {(2, 3)}
    assert {o.shape for o in objects} == set(SHAPES)
    with_digits = [random_object(rng, (0, 0), held_out=True).is_digit for _ in range(2000)]
    assert sum(with_digits) / 2000 == pytest.approx(0.15, abs=0.035)


def test_the_same_random_state_gives_the_same_objects():
    assert full_scene(5) == full_scene(5)
    assert len({full_scene(seed) for seed in range(20)}) == 20


# --- drawing ---------------------------------------------------------------------------------


def test_a_drawing_is_a_small_rgb_picture():
    assert (draw(TWO).size, draw(TWO).mode) == ((SIDE, SIDE), "RGB")
    assert (SIDE, CELL) == (112, 28)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_centre_of_a_filled_shape_has_its_colour(shape: str, size: str):
    for colour, rgb in COLOURS.items():
        assert one(shape, colour, size).getpixel(centre(2, 1)) == rgb


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [*SHAPES, *DIGITS])
def test_whatever_is_drawn_stays_in_its_cell(shape: str, size: str):
    left, top, right, bottom = changed(one(shape, size=size)) or (0, 0, 0, 0)
    cell = box(2, 1)
    assert left < right
    assert (left >= cell[0], top >= cell[1]) == (True, True)
    assert (right <= cell[2], bottom <= cell[3]) == (True, True)


@pytest.mark.parametrize("shape", [*SHAPES, *DIGITS])
def test_large_things_are_larger_than_small_ones(shape: str):
    def area(size: str) -> int:
        left, top, right, bottom = changed(one(shape, size=size)) or (0, 0, 0, 0)
        return (right - left) * (bottom - top)

    assert area("large") > 1.7 * area("small") > 0


def test_each_cell_of_a_full_scene_shows_its_object():
    for seed in range(10):
        scene = full_scene(seed)
        picture, paper = draw(scene), draw(EMPTY)
        for o in scene.objects:
            shown = picture.crop(box(o.row, o.column))
            alone = draw(Scene((o,))).crop(box(o.row, o.column))
            assert shown.tobytes() == alone.tobytes()
            assert difference(shown, paper.crop(box(o.row, o.column))) > 2
            if not o.is_digit:
                assert picture.getpixel(centre(o.row, o.column)) == COLOURS[o.colour]


def test_empty_cells_are_bare_paper_and_filled_ones_are_not():
    picture, paper = draw(TWO), draw(EMPTY)
    filled = [c for c in GRID if picture.crop(box(*c)).tobytes() != paper.crop(box(*c)).tobytes()]
    assert filled == [(o.row, o.column) for o in TWO.objects]


def test_the_light_on_the_paper_says_where_a_spot_is():
    paper = draw(EMPTY)

    def light(x: int, y: int) -> tuple[int, int]:
        """Across and down, each lighter towards the top left."""
        red, _, blue = paper.getpixel((x, y))  # pyright: ignore[reportGeneralTypeIssues]
        return red, blue

    for cell in GRID:
        x, y = centre(*cell)
        assert light(x, 0)[0] == light(x, y)[0]
        assert light(0, y)[1] == light(x, y)[1]
    across = [light(centre(0, column)[0], 0)[0] for column in range(CELLS)]
    down = [light(0, centre(row, 0)[1])[1] for row in range(CELLS)]
    for lights in (across, down):
        assert all(near - far >= 8 for near, far in itertools.pairwise(lights))
    assert len({paper.getpixel(centre(*cell)) for cell in GRID}) == len(GRID)


def test_every_colour_stands_out_from_the_paper_wherever_it_lies():
    paper = draw(EMPTY)
    spots = [paper.getpixel((x, y)) for x in range(0, SIDE, 7) for y in range(0, SIDE, 7)]
    for colour, spot in itertools.product(COLOURS.values(), spots):
        assert isinstance(spot, tuple)
        assert max(abs(a - b) for a, b in zip(colour, spot, strict=True)) > 60


@pytest.mark.parametrize("size", SIZES)
def test_each_digit_and_each_shape_is_drawn_as_itself(size: str):
    drawn = {shape: one(shape, size=size).crop(box(2, 1)) for shape in (*DIGITS, *SHAPES)}
    for first, second in itertools.combinations(drawn, 2):
        assert difference(drawn[first], drawn[second]) > 3, (first, second)


def test_colours_are_apart():
    for first, second in itertools.combinations(COLOURS.values(), 2):
        assert max(abs(a - b) for a, b in zip(first, second, strict=True)) > 60


def test_the_same_scene_is_drawn_the_same_and_leaves_nothing_behind():
    before = draw(EMPTY).tobytes()
    pictures = Counter(draw(full_scene(3)).tobytes() for _ in range(3))
    assert len(pictures) == 1
    assert draw(EMPTY).tobytes() == before
    mine = draw(EMPTY)
    mine.putpixel((0, 0), (1, 2, 3))
    assert draw(EMPTY).tobytes() == before
