"""What is checked of a release's role before the first judgement is made with it."""

from __future__ import annotations

from typing import Protocol

from PIL import Image

from models.comparison import Comparison, JudgeImage
from models.errors import ReleaseInvalid
from models.prompts import FilledPrompt
from models.release import Role
from models.rubric import Rubric


class Renderer(Protocol):
    """How an engine turns prompts into tokens."""

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        """The prompt as the engine will see it, pictures expanded to their tokens."""
        ...


async def check_role(role: Role, renderer: Renderer) -> tuple[int, int]:
    """Checks a judge or a proxy against the engine that serves it.

    Returns:
        The two token ids that stand for "response 1" and "response 2".

    Raises:
        ReleaseInvalid: the prompt does not render, a label is not one distinct
            token after the real prompt tail, a control token survives in
            candidate text, or the pictures leave no room to answer.
    """
    prompt = _filled(role, _probe())
    before_verdict = role.output_format.verdict_prefix()
    tail = await renderer.token_ids(prompt, before_verdict)
    if not tail:
        raise ReleaseInvalid(
            f"release {role.config.name!r}: the {role.name}'s prompt renders to nothing"
        )
    first, second = [
        _label_id(await renderer.token_ids(prompt, before_verdict + label), tail, label)
        for label in role.config.labels
    ]
    if first == second:
        raise ReleaseInvalid(f"the labels {role.config.labels} are one and the same token")
    await _check_room(role, renderer)
    await _check_control_tokens(role, renderer)
    return first, second


def _filled(role: Role, comparison: Comparison, rubric: str = "r") -> FilledPrompt:
    """The prompt of this role's first question; the judge is given no rubric."""
    if role.name == "judge":
        return role.prompts[role.output_format.opening].fill(comparison, role.neutralise)
    return role.prompts["proxy"].fill(comparison, role.neutralise, Rubric(rubric))


def _probe(text: str = "a", images: int = 0) -> Comparison:
    pixels = Image.new("RGB", (56, 56), (128, 128, 128))
    pictures = tuple(JudgeImage(pixels, f"probe:{n}") for n in range(images))
    return Comparison(f"question {text}", (f"first {text}", f"second {text}"), pictures)


def _label_id(with_label: list[int], tail: list[int], label: str) -> int:
    if with_label[:-1] != tail:
        raise ReleaseInvalid(f"the label {label!r} is not a single token after the prompt's tail")
    return with_label[-1]


async def _check_room(role: Role, renderer: Renderer) -> None:
    config = role.config
    cells = config.images.most_pixels // 28**2
    rows = max(range(1, int(cells**0.5) + 1), key=lambda rows: (rows * (cells // rows), rows))
    largest = Image.new("RGB", (28 * (cells // rows), 28 * rows))
    images = tuple(JudgeImage(largest, f"largest:{n}") for n in range(config.images.maximum))
    tokens = len(await renderer.token_ids(_filled(role, Comparison("?", ("a", "b"), images))))
    if role.name == "judge":
        answer, setting = config.sampling.judgement_tokens, "sampling.judgement_tokens"
    else:  # the longest rubric that the judge may write stands in its prompt
        answer, setting = config.proxy.tokens, "proxy.tokens"
        tokens += config.sampling.rubric_tokens
    if tokens + answer > config.context_tokens:
        raise ReleaseInvalid(
            f"{config.images.maximum} pictures of {config.images.most_pixels} pixels take the "
            f"{role.name} {tokens} tokens; with {answer} to answer, that exceeds "
            f"{config.context_tokens}: lower images.maximum, images.most_pixels "
            f"or {setting} in release.toml"
        )


async def _check_control_tokens(role: Role, renderer: Renderer) -> None:
    images = min(1, role.config.images.maximum)
    tokens = role.neutralise.special_tokens
    hostile = "".join(tokens)
    benign_ids = await renderer.token_ids(_filled(role, _probe(images=images)))
    hostile_ids = await renderer.token_ids(_filled(role, _probe(hostile, images), hostile))
    for token in tokens:
        alone = await renderer.token_ids(FilledPrompt("", ()), token)
        token_id = alone[-1]
        if hostile_ids.count(token_id) != benign_ids.count(token_id):
            raise ReleaseInvalid(f"the control token {token!r} survives in candidate text")
