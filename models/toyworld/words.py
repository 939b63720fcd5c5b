"""The words that carry what is seen and what is found."""

from models.toyworld.phrasing import TOPICS
from models.toyworld.scene import COLOURS, COLUMNS, DIGITS, ROWS, SHAPES, SIZES

LABEL_WORDS = frozenset(
    {
        *COLOURS, *SHAPES, *SIZES, *DIGITS, *ROWS, *COLUMNS, *TOPICS.values(),
        "correct", "wrong", "yes", "no",
        "left", "right", "above", "below", "word", "sentence", "short", "long",
        "not", "asked", "nowhere",
    }
)  # fmt: skip
