"""The question put to a judge: images, a question and two responses, in reading order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

Position = Literal[1, 2]
"""Which of the two responses, by the place at which the judge reads it."""


def other(position: Position) -> Position:
    """The response at the other place."""
    return 2 if position == 1 else 1


@dataclass(frozen=True, slots=True)
class JudgeImage:
    """One decoded picture and its identity.

    Attributes:
        pixels: RGB, already inside the release's pixel limit.
        identity: digest of the original bytes and of everything done to them;
            two images with the same identity have the same pixels.
    """

    pixels: Image.Image
    identity: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Images + question + two responses, in the order the judge reads them."""

    question: str
    responses: tuple[str, str]
    images: tuple[JudgeImage, ...] = ()

    def swap(self) -> Comparison:
        """The same comparison with the two responses in the other order."""
        first, second = self.responses
        return replace(self, responses=(second, first))


@dataclass(frozen=True, slots=True)
class LabeledComparison:
    """A comparison whose better response is known."""

    comparison: Comparison
    label: Position

    def swap(self) -> LabeledComparison:
        """The other order; the label moves with its response."""
        return LabeledComparison(self.comparison.swap(), other(self.label))
