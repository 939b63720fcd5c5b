"""Prompts as text files, and filling them in.

A prompt file has two parts, headed ``[system]`` and ``[user]``. The user part
names its holes: ``{images}``, ``{question}``, ``{rubric}``, ``{response_1}`` and
``{response_2}``. What many requests share comes first (instructions), then what
a cohort shares (images, question), so that an engine's prefix cache can reuse as
much as possible. For the judge a given rubric stands before the responses (many
responses, one rubric); for the proxy it stands last (one pair, many rubrics).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.comparison import Comparison, JudgeImage
from models.errors import ReleaseInvalid
from models.neutralise import Neutraliser
from models.rubric import Rubric

Layout = Literal["write_rubric", "no_rubric", "rubric_given", "proxy"]
"""``write_rubric``: the judge writes its own. ``no_rubric``: it judges without one.
``rubric_given``: it stands in the prompt. ``proxy``: for the proxy, who never writes one."""

JUDGE_LAYOUTS: tuple[Layout, ...] = ("write_rubric", "rubric_given")
PROXY_LAYOUTS: tuple[Layout, ...] = ("proxy",)

_COMPARISON_HOLES = frozenset({"images", "question", "response_1", "response_2"})
_HOLES: dict[Layout, frozenset[str]] = {
    "write_rubric": _COMPARISON_HOLES,
    "no_rubric": _COMPARISON_HOLES,
    "rubric_given": _COMPARISON_HOLES | {"rubric"},
    "proxy": _COMPARISON_HOLES | {"rubric"},
}
_PLACE = re.compile(r"\{(images|question|rubric|response_1|response_2)\}")
_PARTS = re.compile(r"\A\[system\]\n(?P<system>.*?)\n\[user\]\n(?P<user>.*)\Z", re.DOTALL)

DEFAULT_DIR = Path(__file__).parent
"""The prompt files for capable instruction-tuned models, used where a release names no others."""


@dataclass(frozen=True, slots=True)
class FilledPrompt:
    """A prompt ready for an engine's chat template.

    Attributes:
        system: the instructions.
        user: text and images in reading order.
        injection_attempts: control strings that were made harmless on the way in.
    """

    system: str
    user: tuple[str | JudgeImage, ...]
    injection_attempts: int = 0

    @property
    def images(self) -> tuple[JudgeImage, ...]:
        """The images alone, in reading order."""
        return tuple(part for part in self.user if isinstance(part, JudgeImage))


@dataclass(frozen=True, slots=True)
class PromptFile:
    """One layout, parsed and checked."""

    system: str
    user: tuple[str, ...]  # literal text at even places, hole names at odd ones

    @classmethod
    def read(cls, path: Path, layout: Layout) -> PromptFile:
        """Reads a prompt file.

        Raises:
            ReleaseInvalid: it is missing, has no ``[system]``/``[user]`` parts, or
                not exactly the holes of its layout.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as cause:
            raise ReleaseInvalid(f"prompt file {path.name} cannot be read") from cause
        parts = _PARTS.match(text.strip() + "\n")
        if parts is None:
            raise ReleaseInvalid(f"{path.name}: expected a [system] part followed by a [user] part")
        user = tuple(_PLACE.split(parts["user"].strip()))
        holes = user[1::2]
        if sorted(holes) != sorted(_HOLES[layout]):
            raise ReleaseInvalid(
                f"{path.name}: needs each of {sorted(_HOLES[layout])} exactly once"
            )
        if "" in user[2:-1:2]:
            # "<|im_" at the end of one and "end|>" at the start of the next would be a token.
            raise ReleaseInvalid(f"{path.name}: text must part {{question}} and the like")
        return cls(parts["system"].strip(), user)

    def fill(
        self, comparison: Comparison, neutralise: Neutraliser, rubric: Rubric | None = None
    ) -> FilledPrompt:
        """Puts a comparison into the prompt, every outside text made harmless first."""
        first, second = comparison.responses
        texts = {"question": comparison.question, "response_1": first, "response_2": second}
        if rubric is not None:
            texts["rubric"] = rubric.text
        neutral = {hole: neutralise(text) for hole, text in texts.items()}
        written = {hole: text.text for hole, text in neutral.items()}
        return FilledPrompt(
            self.system,
            tuple(_joined(self._filled(written, comparison.images))),
            sum(text.attempts for text in neutral.values()),
        )

    def _filled(
        self, texts: dict[str, str], images: tuple[JudgeImage, ...]
    ) -> Iterator[str | JudgeImage]:
        for place, piece in enumerate(self.user):
            if place % 2 == 0:
                yield piece
            elif piece == "images":
                yield from images
            else:
                yield texts[piece]


Prompts = dict[Layout, PromptFile]
"""A judge's or a proxy's prompt files by layout."""


def read_prompts(folder: Path, layouts: tuple[Layout, ...] = JUDGE_LAYOUTS) -> Prompts:
    """Reads one file a layout (``write_rubric.txt`` and so on) of a folder.

    Raises:
        ReleaseInvalid: one of them is missing or malformed.
    """
    return {layout: PromptFile.read(folder / f"{layout}.txt", layout) for layout in layouts}


def _joined(pieces: Iterator[str | JudgeImage]) -> Iterator[str | JudgeImage]:
    """Neighbouring texts as one, empty ones dropped."""
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        if text:
            yield text
        text = ""
        yield piece
    if text:
        yield text
