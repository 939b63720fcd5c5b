"""Making candidate text unable to act as anything but text.

A response may contain ``<|im_end|>``, ``<|image_pad|>`` or ``</eval>``: in a
prompt the first ends the turn, the second binds the picture to the wrong place
and the third talks in the judge's own grammar. One transform, used for serving and
for training data alike, replaces the characters that give such a string its power
and leaves every other text exactly as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from models.judgement import TAG_NAMES

NEUTRALISE_REVISION = 1
"""Part of every fingerprint: raise it when the same text would be rewritten differently."""

OWN_TAGS = (*TAG_NAMES, "question", "response_1", "response_2")
"""Of our grammar, and those that our prompt files put around what comes from outside."""

_ANGLES = str.maketrans({"<": "‹", ">": "›"})
_WORD_JOINER = "\u2060"


@dataclass(frozen=True, slots=True)
class NeutralText:
    """A text that is safe to put into a prompt.

    Attributes:
        text: equal to the original wherever nothing had to be replaced.
        attempts: how many control strings were found.
    """

    text: str
    attempts: int


class Neutraliser:
    """The transform for one tokenizer.

    Args:
        special_tokens: every string that the tokenizer maps to a control token,
            image and video placeholders included.
        tags: names that mean something between angle brackets.
        marks: other strings that part the prompt.
    """

    def __init__(
        self,
        special_tokens: Iterable[str],
        tags: Iterable[str] = OWN_TAGS,
        marks: Iterable[str] = (),
    ) -> None:
        # Longest first: of two tokens that begin alike the longer one is meant.
        # A single letter that is a token of its own ("ö") is ordinary text.
        found = {token for token in special_tokens if len(token.strip()) > 1}
        tokens = sorted(found, key=lambda token: (-len(token), token))
        self.special_tokens = tuple(tokens)
        alternatives = [re.escape(token) for token in tokens]
        tag = rf"<\s*(?:/\s*)?(?:{'|'.join(tags)})\s*(?:/\s*)?>"
        parted = [re.escape(mark).replace(r"\ ", r"\s*") for mark in marks]
        self._control = re.compile("|".join([*alternatives, f"(?i:{'|'.join([tag, *parted])})"]))

    def __call__(self, text: str) -> NeutralText:
        """Replaces each control string by a look-alike that is only text."""
        neutral, attempts = self._control.subn(_defuse, text)
        return NeutralText(neutral, attempts)


def _defuse(match: re.Match[str]) -> str:
    found = match.group()
    changed = found.translate(_ANGLES)
    if changed != found:
        return changed
    # A token without angle brackets ("[INST]"): split everywhere, for it may overlap another.
    return "".join(letter + _WORD_JOINER for letter in found)
