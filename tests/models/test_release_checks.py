from __future__ import annotations

import dataclasses
import re

import pytest

from models.errors import ReleaseInvalid
from models.prompts import FilledPrompt
from models.release import Release, load_release
from models.release_checks import check_release

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

    def __init__(self, release: Release) -> None:
        super().__init__(release.neutralise.special_tokens)
        self.most_images = release.config.images.maximum

    async def token_ids(self, prompt: FilledPrompt, prefill: str = "") -> list[int]:
        if len(prompt.images) > self.most_images:
            raise ValueError(f"at most {self.most_images} image(s) may be provided in one prompt")
        return await super().token_ids(prompt, prefill)


@pytest.fixture
def release(release_folder) -> Release:
    return load_release(str(release_folder))


def with_config(release: Release, **changes) -> Release:
    config = release.config.model_dump()
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    return dataclasses.replace(release, config=type(release.config).model_validate(config))


async def test_a_sound_release_gives_its_two_label_tokens(release):
    renderer = LetterRenderer(release.neutralise.special_tokens)
    assert await check_release(release, renderer) == (1_000 + ord("1"), 1_000 + ord("2"))


async def test_labels_may_be_other_tokens(release):
    lettered = with_config(release, labels=("A", "yes"))
    renderer = LetterRenderer(release.neutralise.special_tokens, merged=("yes",))
    assert await check_release(lettered, renderer) == (
        1_000 + ord("A"),
        len(release.neutralise.special_tokens),
    )


async def test_a_prompt_that_renders_to_nothing_is_refused(release):
    renderer = SilentRenderer(release.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="'small': the prompt renders to nothing"):
        await check_release(release, renderer)


async def test_a_label_that_melts_into_the_prompt_is_refused(release):
    renderer = LetterRenderer(release.neutralise.special_tokens, merged=(">2",))
    with pytest.raises(ReleaseInvalid, match="'2' is not a single token after the prompt's tail"):
        await check_release(release, renderer)


@pytest.mark.parametrize("label", ["10", "", "first"])
async def test_a_label_that_is_not_one_token_is_refused(release, label):
    renderer = LetterRenderer(release.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match=f"'{label}' is not a single token"):
        await check_release(with_config(release, labels=(label, "2")), renderer)


@pytest.mark.parametrize("labels", [("1", "1"), ("A", "a")])
async def test_labels_that_are_the_same_token_are_refused(release, labels):
    renderer = CaseBlindRenderer(release.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="one and the same token"):
        await check_release(with_config(release, labels=labels), renderer)


async def test_pictures_that_leave_no_room_to_answer_are_refused(release):
    crowded = with_config(release, images={"maximum": 3, "most_pixels": 400 * PATCH})
    renderer = LetterRenderer(release.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="3 pictures of 313600 pixels") as caught:
        await check_release(crowded, renderer)
    assert "exceeds 1024" in str(caught.value)


async def test_the_room_is_exactly_prompt_and_pictures_and_answer(release):
    renderer = LetterRenderer(release.neutralise.special_tokens)
    await check_release(release, renderer)
    fullest = max(
        len(renderer.encode(renderer.text(prompt)))
        for prompt in renderer.seen
        if [image.pixels.size for image in prompt.images] == [(56, 56)]
        and "first" not in prompt.user[-1]
    )
    exact = with_config(release, sampling={"judgement_tokens": 1024 - fullest})
    await check_release(exact, renderer)
    one_more = with_config(release, sampling={"judgement_tokens": 1025 - fullest})
    with pytest.raises(ReleaseInvalid, match=r"lower images\.maximum"):
        await check_release(one_more, renderer)


async def test_the_room_is_measured_with_the_largest_pictures_not_only_square_ones(release):
    # 1,003,520 pixels are 1,280 patches (32 x 40); the largest square in them has 1,225.
    wide = with_config(
        release,
        images={"maximum": 8, "most_pixels": 1280 * PATCH},
        context_tokens=8 * 1280 + 64,
    )
    renderer = LetterRenderer(release.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="8 pictures of 1003520 pixels"):
        await check_release(wide, renderer)


async def test_a_control_token_that_survives_in_candidate_text_is_refused(release):
    renderer = FoldingRenderer(release.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="survives in candidate text"):
        await check_release(release, renderer)


async def test_the_surviving_token_is_named(release):
    class OneFolding(LetterRenderer):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.replace("‹tool_call›", "<tool_call>"))

    renderer = OneFolding(release.neutralise.special_tokens)
    with pytest.raises(ReleaseInvalid, match="'<tool_call>' survives"):
        await check_release(release, renderer)


async def test_candidate_text_is_tried_with_every_control_token(release):
    renderer = LetterRenderer(release.neutralise.special_tokens)
    await check_release(release, renderer)
    tokens = len(release.neutralise.special_tokens)
    # In the question and in both responses.
    assert max(prompt.injection_attempts for prompt in renderer.seen) == 3 * tokens


async def test_a_release_that_takes_pictures_is_checked_with_its_largest_number(release):
    four = with_config(release, images={"maximum": 4})
    renderer = StrictRenderer(four)
    assert await check_release(four, renderer) == (1_000 + ord("1"), 1_000 + ord("2"))
    assert max(len(prompt.images) for prompt in renderer.seen) == 4


async def test_a_release_that_takes_no_pictures_is_checked_without_any(release):
    blind = with_config(release, images={"maximum": 0})
    renderer = StrictRenderer(blind)
    assert await check_release(blind, renderer) == (1_000 + ord("1"), 1_000 + ord("2"))
