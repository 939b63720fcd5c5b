"""What is checked of a release before the first judgement is made with it."""

from __future__ import annotations

from typing import Protocol

from PIL import Image

from models.comparison import Comparison, JudgeImage
from models.errors import ReleaseInvalid
from models.judgement import verdict_prefix
from models.prompts import FilledPrompt
from models.release import Release


class Renderer(Protocol):
    """How an engine turns prompts into tokens."""

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        """The prompt as the engine will see it, pictures expanded to their tokens."""
        ...


async def check_release(release: Release, renderer: Renderer) -> tuple[int, int]:
    """Checks a release against the engine that serves it.

    Returns:
        The two token ids that stand for "response 1" and "response 2".

    Raises:
        ReleaseInvalid: the prompt does not render, a label is not one distinct
            token after the real prompt tail, a control token survives in
            candidate text, or the pictures leave no room to answer.
    """
    prompt = release.prompts["write_rubric"].fill(_probe(), release.neutralise)
    tail = await renderer.token_ids(prompt, verdict_prefix(None))
    if not tail:
        raise ReleaseInvalid(f"release {release.config.name!r}: the prompt renders to nothing")
    first, second = [
        await _label_id(renderer, prompt, tail, label) for label in release.config.labels
    ]
    if first == second:
        raise ReleaseInvalid(f"the labels {release.config.labels} are one and the same token")
    await _check_room(release, renderer)
    await _check_control_tokens(release, renderer)
    return first, second


def _probe(text: str = "a", images: int = 0) -> Comparison:
    pixels = Image.new("RGB", (56, 56), (128, 128, 128))
    pictures = tuple(JudgeImage(pixels, f"probe:{n}") for n in range(images))
    return Comparison(f"question {text}", (f"first {text}", f"second {text}"), pictures)


async def _label_id(renderer: Renderer, prompt: FilledPrompt, tail: list[int], label: str) -> int:
    with_label = await renderer.token_ids(prompt, verdict_prefix(None) + label)
    if with_label[:-1] != tail:
        raise ReleaseInvalid(f"the label {label!r} is not a single token after the prompt's tail")
    return with_label[-1]


async def _check_room(release: Release, renderer: Renderer) -> None:
    config = release.config
    cells = config.images.most_pixels // 28**2
    rows = max(range(1, int(cells**0.5) + 1), key=lambda rows: (rows * (cells // rows), rows))
    largest = Image.new("RGB", (28 * (cells // rows), 28 * rows))
    images = tuple(JudgeImage(largest, f"largest:{n}") for n in range(config.images.maximum))
    comparison = Comparison("?", ("a", "b"), images)
    prompt = release.prompts["write_rubric"].fill(comparison, release.neutralise)
    tokens = len(await renderer.token_ids(prompt))
    if tokens + config.sampling.judgement_tokens > config.context_tokens:
        raise ReleaseInvalid(
            f"{config.images.maximum} pictures of {config.images.most_pixels} pixels take "
            f"{tokens} tokens; with {config.sampling.judgement_tokens} to answer, that exceeds "
            f"{config.context_tokens}: lower images.maximum, images.most_pixels "
            "or sampling.judgement_tokens in release.toml"
        )


async def _check_control_tokens(release: Release, renderer: Renderer) -> None:
    images = min(1, release.config.images.maximum)
    hostile = "".join(release.neutralise.special_tokens)
    fill = release.prompts["write_rubric"].fill
    benign_ids = await renderer.token_ids(fill(_probe(images=images), release.neutralise))
    hostile_ids = await renderer.token_ids(fill(_probe(hostile, images), release.neutralise))
    for token in release.neutralise.special_tokens:
        alone = await renderer.token_ids(FilledPrompt("", ()), token)
        token_id = alone[-1]
        if hostile_ids.count(token_id) != benign_ids.count(token_id):
            raise ReleaseInvalid(f"the control token {token!r} survives in candidate text")
