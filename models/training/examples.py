"""Training examples: what a judge is shown and what it should write."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from models.comparison import JudgeImage
from models.neutralise import Neutraliser
from models.prompts import Layout, Prompts
from models.toyworld import ToyCase
from models.toyworld.scene import draw

CAPTION_INSTRUCTION = "Name what each cell shows."


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised turn; the loss is on `answer` alone."""

    system: str
    user: tuple[str | JudgeImage, ...]
    answer: str

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The pictures in reading order."""
        return tuple(part.pixels for part in self.user if isinstance(part, JudgeImage))


def chat_text(example: Example) -> str:
    """The example in the chat format of Qwen2.5-VL, one placeholder an image."""
    user = "".join(
        part if isinstance(part, str) else "<|vision_start|><|image_pad|><|vision_end|>"
        for part in example.user
    )
    return (
        f"<|im_start|>system\n{example.system}<|im_end|>\n"
        f"<|im_start|>user\n{user}<|im_end|>\n"
        f"<|im_start|>assistant\n{example.answer}<|im_end|>\n"
    )


def caption_example(case: ToyCase) -> Example:
    """Every cell of the scene in words: dense supervision for seeing."""
    picture = JudgeImage(draw(case.scene), identity="")
    return Example(CAPTION_INSTRUCTION, (picture,), case.scene.caption())


def judgement_example(
    case: ToyCase, prompts: Prompts, neutralise: Neutraliser, rng: random.Random
) -> Example:
    """The case in one of the forms a judge is asked in.

    Usually a whole judgement; sometimes the rubric given; sometimes an empty
    evaluation, so that the verdict can be asked for at once (verdict depth).
    """
    given, evaluated = rng.random() < 0.3, rng.random() >= 0.2
    comparison = case.labeled().comparison
    layout: Layout = "rubric_given" if given else "write_rubric"
    prompt = prompts[layout].fill(comparison, neutralise, case.rubric if given else None)
    return Example(
        prompt.system, prompt.user, case.written(rubric_given=given, evaluated=evaluated)
    )
