from __future__ import annotations

import asyncio
import dataclasses
import re
import shutil

import pytest

from models.errors import ReleaseInvalid
from models.prompts import FilledPrompt
from models.release import Role, load_release
from models.release_checks import check_role

PATCH = 28 * 28


class LetterRenderer:
    """Every control token and every other letter is one token; a picture takes one a patch.

    Args:
        control: the control tokens of the fake engine's tokenizer.
        merged: strings beyond single letters that are one token.
    """

    def __init__(self, control: tuple[str, ...], merged: tuple[str, ...] = ()) -> None:
        self.vocabulary = [*control, *merged]
        longest_first = sorted(self.vocabulary, key=len, reverse=True)
        self._piece = re.compile("|".join([*map(re.escape, longest_first), "(?s:.)"]))
        self.seen: list[FilledPrompt] = []

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        self.seen.append(prompt)
        return self.encode(self.text(prompt) + prefill)

    def text(self, prompt: FilledPrompt) -> str:
        user = "".join(
            part
            if isinstance(part, str)
            else "<|image_pad|>" * (part.pixels.width * part.pixels.height // PATCH)
            for part in prompt.user
        )
        return f"<|im_start|>{prompt.system}\n{user}<|im_end|>\n"

    def encode(self, text: str) -> list[int]:
        return [
            self.vocabulary.index(piece) if piece in self.vocabulary else 1_000 + ord(piece)
            for piece in self._piece.findall(text)
        ]


class SilentRenderer(LetterRenderer):
    """Renders every prompt to nothing."""

    def text(self, prompt: FilledPrompt) -> str:
        return ""

    def encode(self, text: str) -> list[int]:
        return []


class CaseBlindRenderer(LetterRenderer):
    """Tells no capitals from small letters."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.lower())


class FoldingRenderer(LetterRenderer):
    """Turns the look-alikes back into what they look like, as some normalisers do."""

    def encode(self, text: str) -> list[int]:
        return super().encode(text.replace("‹", "<").replace("›", ">"))


class StrictRenderer(LetterRenderer):
    """Refuses more pictures than the release allows, as vLLM does."""

    def __init__(self, role: Role) -> None:
        super().__init__(role.neutralise.special_tokens)
        self.most_images = role.config.images.maximum

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        if len(prompt.images) > self.most_images:
            raise ValueError(f"at most {self.most_images} image(s) may be provided in one prompt")
        return await super().token_ids(prompt, prefill)


@pytest.fixture(params=["judge", "proxy"])
def role(request, proxy_release_folder) -> Role:
    return getattr(load_release(str(proxy_release_folder)), request.param)


def with_config(role: Role, **changes) -> Role:
    config = role.config.model_dump()
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    return dataclasses.replace(role, config=type(role.config).model_validate(config))


def answering(role: Role, tokens: int) -> Role:
    """The role with another longest answer."""
    if role.name == "judge":
        return with_config(role, sampling={"judgement_tokens": tokens})
    return with_config(role, proxy={"tokens": tokens})


async def test_a_sound_release_gives_its_two_label_tokens(role):
    renderer = LetterRenderer(role.neutralise.special_tokens)
    assert await check_role(role, renderer) == (1_000 + ord("1"), 1_000 + ord("2"))


async def test_labels_may_be_other_tokens(role):
    lettered = with_config(role, labels=("A", "yes"))
    renderer = LetterRenderer(role.neutralise.special_tokens, merged=("yes",))
    assert await check_role(lettered, renderer) == (
        1_000 + ord("A"),
        len(role.neutralise.special_tokens),
    )


async def test_a_judge_of_another_output_format_is_checked_at_the_place_of_its_verdict(
    release_folder,
):
    path = release_folder / "release.toml"
    path.write_text(
        'output_format = "unified_reward_think"\n'
        + path.read_text().replace("context_tokens = 1024", "context_tokens = 4096")
    )
    shutil.rmtree(release_folder / "prompts")
    judge = load_release(str(release_folder)).judge
    renderer = LetterRenderer(judge.neutralise.special_tokens)
    assert await check_role(judge, renderer) == (1_000 + ord("1"), 1_000 + ord("2"))
    merging = LetterRenderer(judge.neutralise.special_tokens, merged=(" 2",))
    with pytest.raises(ReleaseInvalid, match="'2' is not a single token after the prompt's tail"):
        await check_role(judge, merging)


async def test_a_prompt_that_renders_to_nothing_is_refused(role):
    renderer = SilentRenderer(role.neutralise.special_tokens)
    with pytest.raises(
        ReleaseInvalid, match=f"'small': the {role.name}'s prompt renders to nothing"
    ):
        await check_role(role, renderer)


async def test_a_label_that_melts_into_the_prompt_is_refused(role):
    renderer = LetterRenderer(role.neutralise.special_tokens, merged=(">2",))
    with pytest.raises(ReleaseInvalid, match="'2' is not a single token after the prompt's tail"):
        await check_role(role, renderer)


@pytest.mark.parametrize("label", ["10", "", "first"])
async def test_a_label_that_is_not_one_token_is_refused(role, label):
    renderer = LetterRenderer(role.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match=f"'{label}' is not a single token"):
        await check_role(with_config(role, labels=(label, "2")), renderer)


@pytest.mark.parametrize("labels", [("1", "1"), ("A", "a")])
async def test_labels_that_are_the_same_token_are_refused(role, labels):
    renderer = CaseBlindRenderer(role.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="one and the same token"):
        await check_role(with_config(role, labels=labels), renderer)


async def test_pictures_that_leave_no_room_to_answer_are_refused(role):
    crowded = with_config(role, images={"maximum": 3, "most_pixels": 400 * PATCH})
    renderer = LetterRenderer(role.neutralise.special_tokens)
    with pytest.raises(
        ReleaseInvalid, match=f"3 pictures of 313600 pixels take the {role.name} "
    ) as caught:
        await check_role(crowded, renderer)
    assert "exceeds 1024" in str(caught.value)


async def test_the_room_is_exactly_prompt_and_pictures_and_answer(role):
    renderer = LetterRenderer(role.neutralise.special_tokens)
    await check_role(role, renderer)
    fullest = max(
        len(renderer.encode(renderer.text(prompt)))
        for prompt in renderer.seen
        if [image.pixels.size for image in prompt.images] == [(56, 56)]
        and "first" not in prompt.user[-1]
    )
    if role.name == "proxy":
        fullest += role.config.sampling.rubric_tokens
    await check_role(answering(role, 1024 - fullest), renderer)
    with pytest.raises(ReleaseInvalid, match=r"lower images\.maximum"):
        await check_role(answering(role, 1025 - fullest), renderer)


async def test_the_room_is_measured_with_the_largest_pictures_not_only_square_ones(role):
    # 1,003,520 pixels are 1,280 patches (32 x 40); the largest square in them has 1,225.
    wide = with_config(
        role,
        images={"maximum": 8, "most_pixels": 1280 * PATCH},
        context_tokens=8 * 1280 + 64,
    )
    renderer = LetterRenderer(role.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="8 pictures of 1003520 pixels"):
        await check_role(wide, renderer)


async def test_a_control_token_that_survives_in_candidate_text_is_refused(role):
    renderer = FoldingRenderer(role.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="survives in candidate text"):
        await check_role(role, renderer)


async def test_the_surviving_token_is_named(role):
    class OneFolding(LetterRenderer):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.replace("‹tool_call›", "<tool_call>"))

    renderer = OneFolding(role.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="'<tool_call>' survives"):
        await check_role(role, renderer)


async def test_candidate_text_is_tried_with_every_control_token(role):
    renderer = LetterRenderer(role.neutralise.special_tokens)
    await check_role(role, renderer)
    tokens = len(role.neutralise.special_tokens)
    # In the question and in both responses; in the rubric that a proxy is given.
    places = 3 if role.name == "judge" else 4
    assert max(prompt.injection_attempts for prompt in renderer.seen) == places * tokens


async def test_a_release_that_takes_pictures_is_checked_with_its_largest_number(role):
    four = with_config(role, images={"maximum": 4})
    renderer = StrictRenderer(four)
    assert await check_role(four, renderer) == (1_000 + ord("1"), 1_000 + ord("2"))
    assert max(len(prompt.images) for prompt in renderer.seen) == 4


async def test_a_release_that_takes_no_pictures_is_checked_without_any(role):
    blind = with_config(role, images={"maximum": 0})
    renderer = StrictRenderer(blind)
    assert await check_role(blind, renderer) == (1_000 + ord("1"), 1_000 + ord("2"))


def test_each_role_names_the_setting_that_would_make_room(role):
    renderer = LetterRenderer(role.neutralise.special_tokens)
    setting = {"judge": r"sampling\.judgement_tokens", "proxy": r"proxy\.tokens"}[role.name]
    with pytest.raises(ReleaseInvalid, match=f"or {setting} in release"):
        asyncio.run(check_role(answering(role, 2000), renderer))


def test_the_proxy_leaves_room_for_the_longest_rubric_that_the_judge_writes(role):
    roomy = with_config(role, sampling={"rubric_tokens": 1000})
    renderer = LetterRenderer(role.neutralise.special_tokens)
    if role.name == "judge":
        asyncio.run(check_role(roomy, renderer))
    else:
        with pytest.raises(ReleaseInvalid, match="that exceeds 1024"):
            asyncio.run(check_role(roomy, renderer))
