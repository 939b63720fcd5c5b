"""What vLLM is asked for alike in this process and over HTTP."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image

from models.comparison import JudgeImage
from models.prompts import FilledPrompt
from models.release import Release, Role

PRIORITIES = {"interactive": 0, "batch": 10}  # vLLM serves the lower number first
FEWEST_ANSWER_TOKENS = 16
"""With less room than this, a comparison does not fit the context."""


def probe(role: Role) -> FilledPrompt:
    """Something to make a first forward pass with, a picture where the role takes any."""
    pixels = Image.new("RGB", (56, 56), (128, 128, 128))
    picture = (JudgeImage(pixels, "probe"),) if role.config.images.maximum else ()
    return FilledPrompt("Answer.", (*picture, "Ready?"))


def surprisal(logprobs: Iterable[float]) -> float | None:
    """The largest of some tokens, in nats; None of none."""
    return max((-logprob for logprob in logprobs), default=None)


SERVED = "proxy-grm/"
"""What the name of a model begins with that `python -m service engine` serves."""


def served_name(release: Release, role: Role) -> str:
    """The name under which a server of ours has these very weights."""
    return f"{SERVED}{release.config.name}/{role.name}/{release.fingerprint}"
