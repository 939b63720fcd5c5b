"""Scenes: coloured shapes and digits on a 4x4 grid, and drawing them."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE = 112
"""Width and height of a drawing, pixels."""
CELLS = 4
"""Rows, and columns. One cell is 28 x 28 pixels: one visual token of Qwen2.5-VL."""
_CELL = SIDE // CELLS
_ZOOM = 3  # drawn larger and reduced: PIL's own edges are jagged

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (46, 158, 63),
    "blue": (38, 84, 206),
    "yellow": (226, 178, 0),
    "purple": (138, 58, 185),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star")
SIZES = ("small", "large")
DIGITS = tuple("0123456789")
ROWS = ("top", "upper", "lower", "bottom")
"""What rows are called, from above."""
COLUMNS = ("A", "B", "C", "D")
"""What columns are called, from the left."""

_MARGIN = {"small": 7, "large": 2}
_PAPER_LIGHT, _PAPER_DARK = 252, 196

HELD_OUT = frozenset(
    {
        ("circle", "blue"),
        ("square", "yellow"),
        ("triangle", "red"),
        ("star", "purple"),
        *zip(DIGITS, ("red", "green", "blue", "yellow", "purple", "black") * 2, strict=False),
    }
)
"""(shape or digit, colour) that no training scene shows and no training text names."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing in one cell; rows and columns count from 0 at the top left.

    Attributes:
        shape: one of `SHAPES`, or one of `DIGITS` for a digit written there.
        colour: a key of `COLOURS`.
        size: one of `SIZES`.
    """

    shape: str
    colour: str
    size: str
    row: int
    column: int

    @property
    def name(self) -> str:
        """What a speaker calls it: ``red circle``, or ``red digit 7``."""
        return f"{self.colour} {f'digit {self.shape}' if self.is_digit else self.shape}"

    @property
    def place(self) -> str:
        """What its cell is called: ``upper C``."""
        return f"{ROWS[self.row]} {COLUMNS[self.column]}"

    @property
    def is_digit(self) -> bool:
        """Whether it is a written digit rather than a shape."""
        return self.shape in DIGITS

    @property
    def is_held_out(self) -> bool:
        """Whether its combination is kept from training."""
        return (self.shape, self.colour) in HELD_OUT


@dataclass(frozen=True, slots=True)
class Scene:
    """What a drawing shows, in reading order. No two objects share a cell."""

    objects: tuple[SceneObject, ...]

    def find(self, shape: str | None = None, colour: str | None = None) -> list[SceneObject]:
        """The objects of that shape and colour; None matches every one."""
        return [o for o in self.objects if shape in (None, o.shape) and colour in (None, o.colour)]

    def count(self, shape: str | None = None, colour: str | None = None) -> int:
        """How many objects `find` finds."""
        return len(self.find(shape, colour))

    @property
    def digits(self) -> list[SceneObject]:
        """The written digits."""
        return [o for o in self.objects if o.is_digit]


def arrange(objects: list[SceneObject]) -> Scene:
    """The scene with its objects in reading order.

    Raises:
        ValueError: two of them share a cell.
    """
    if len({(o.row, o.column) for o in objects}) < len(objects):
        raise ValueError("two objects share a cell")
    return Scene(tuple(sorted(objects, key=lambda o: (o.row, o.column))))


def random_object(
    rng: random.Random, cell: tuple[int, int], *, held_out: bool, digits: bool = True
) -> SceneObject:
    """Anything, in that cell; combinations kept from training only when `held_out` allows."""
    while True:
        shape = rng.choice(DIGITS) if digits and rng.random() < 0.15 else rng.choice(SHAPES)
        found = SceneObject(shape, rng.choice(list(COLOURS)), rng.choice(SIZES), *cell)
        if held_out or not found.is_held_out:
            return found


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of `SIDE` x `SIDE` pixels."""
    canvas = _paper().copy()
    pen = ImageDraw.Draw(canvas)
    for o in scene.objects:
        margin = _MARGIN[o.size] * _ZOOM
        left, top = o.column * _CELL * _ZOOM + margin, o.row * _CELL * _ZOOM + margin
        side = _CELL * _ZOOM - 2 * margin
        _draw_object(pen, o, (left, top, left + side, top + side))
    return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


Box = tuple[int, int, int, int]


def _draw_object(pen: ImageDraw.ImageDraw, o: SceneObject, box: Box) -> None:
    fill = COLOURS[o.colour]
    left, top, right, bottom = box
    if o.is_digit:
        middle = ((left + right) / 2, (top + bottom) / 2)
        tall = bottom - top
        font = _font(tall * 1.15)
        pen.text(middle, o.shape, fill, font, anchor="mm", stroke_width=max(1, tall // 18))
    elif o.shape == "circle":
        pen.ellipse(box, fill=fill)
    elif o.shape == "square":
        pen.rectangle(box, fill=fill)
    elif o.shape == "triangle":
        pen.polygon([((left + right) // 2, top), (right, bottom), (left, bottom)], fill=fill)
    else:  # a star with four points
        x, y, inner = (left + right) // 2, (top + bottom) // 2, (right - left) // 8
        points = [(x, top), (x + inner, y - inner), (right, y), (x + inner, y + inner)]
        points += [(x, bottom), (x - inner, y + inner), (left, y), (x - inner, y - inner)]
        pen.polygon(points, fill=fill)


@functools.cache
def _paper() -> Image.Image:
    """Paper lit from two sides: redder to the left, bluer to the top.

    The light says where on the page a spot is, as shading does in photographs; on a flat
    background a spot's own pixels say nothing about its place.
    """
    side = SIDE * _ZOOM
    slope = Image.linear_gradient("L").resize((side, side))  # dark at the top
    fall = _PAPER_LIGHT - _PAPER_DARK
    vertical = slope.point([_PAPER_LIGHT - value * fall // 255 for value in range(256)])
    horizontal = vertical.transpose(Image.Transpose.ROTATE_90)  # light on the left
    middle = Image.new("L", (side, side), (_PAPER_LIGHT + _PAPER_DARK) // 2)
    return Image.merge("RGB", (horizontal, middle, vertical))


@functools.cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow's own, so that every machine draws alike
