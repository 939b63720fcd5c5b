"""Scenes: a few coloured shapes on a 4x4 grid, and drawing them."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

SIDE = 112
"""Width and height of a drawing, pixels."""
CELLS = 4
_CELL = SIDE // CELLS

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (46, 158, 63),
    "blue": (38, 84, 206),
    "yellow": (240, 200, 30),
    "purple": (138, 58, 185),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle")
_BACKGROUND = (250, 248, 242)


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape in one cell; rows and columns count from 0 at the top left."""

    shape: str
    colour: str
    row: int
    column: int

    @property
    def name(self) -> str:
        """What a speaker calls it: ``red circle``."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a drawing shows. No two objects share a cell."""

    objects: tuple[SceneObject, ...]

    def count(self, colour: str | None = None, shape: str | None = None) -> int:
        """How many objects have the colour and the shape; None matches every one."""
        return sum(colour in (None, o.colour) and shape in (None, o.shape) for o in self.objects)

    def caption(self) -> str:
        """Every cell in words, row by row: dense supervision for learning to see."""
        at = {(o.row, o.column): o.name for o in self.objects}
        rows = (
            ", ".join(at.get((row, column), "none") for column in range(CELLS))
            for row in range(CELLS)
        )
        return "\n".join(rows)


def random_scene(rng: random.Random, fewest: int = 2, most: int = 7) -> Scene:
    """A scene of `fewest`..`most` objects, at least two of one kind more often than by chance."""
    size = rng.randint(fewest, most)
    cells = rng.sample([(r, c) for r in range(CELLS) for c in range(CELLS)], size)
    kinds = [(rng.choice(SHAPES), rng.choice(list(COLOURS))) for _ in range(max(2, size - 2))]
    chosen = (kinds[:2] + [rng.choice(kinds) for _ in range(size - 2)])[:size]
    return Scene(
        tuple(
            SceneObject(shape, colour, row, column)
            for (shape, colour), (row, column) in zip(chosen, cells, strict=True)
        )
    )


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of `SIDE` x `SIDE` pixels."""
    # Drawn at four times the size and reduced: PIL's own edges are jagged.
    zoom = 4
    canvas = Image.new("RGB", (SIDE * zoom, SIDE * zoom), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    margin = 4 * zoom
    for o in scene.objects:
        left, top = o.column * _CELL * zoom + margin, o.row * _CELL * zoom + margin
        right, bottom = left + _CELL * zoom - 2 * margin, top + _CELL * zoom - 2 * margin
        fill = COLOURS[o.colour]
        if o.shape == "circle":
            pen.ellipse((left, top, right, bottom), fill=fill)
        elif o.shape == "square":
            pen.rectangle((left, top, right, bottom), fill=fill)
        else:
            pen.polygon([((left + right) // 2, top), (right, bottom), (left, bottom)], fill=fill)
    return canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
