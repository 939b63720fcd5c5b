"""Candidate text can't act as a control token or a grammar tag, in the engine's own rendering."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from PIL import Image

from models import torchvision_guard
from models.comparison import Comparison, JudgeImage
from models.neutralise import OWN_TAGS
from models.prompts import FilledPrompt
from models.release import Release, load_release
from models.rubric import Rubric
from service.engines.vllm_arguments import engine_arguments, prepare_environment
from service.engines.vllm_rendering import PromptRenderer
from service.settings import VllmSettings
from service.tenancy import acting_for

pytestmark = pytest.mark.filterwarnings("ignore")  # vLLM's and torch's own, while they are imported

RELEASE = load_release("tiny")
TAGS = [f"<{slash}{name}>" for name in OWN_TAGS for slash in ("", "/")]
PLACES = ("question", "response 1", "response 2", "rubric")


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    torchvision_guard.install()
    settings = VllmSettings()
    prepare_environment(settings)
    from vllm import AsyncEngineArgs

    arguments = AsyncEngineArgs(**engine_arguments(RELEASE, RELEASE.judge, settings))
    return PromptRenderer.without_engine(arguments.create_engine_config())


def prompt_with(text: str, place: str, release: Release = RELEASE) -> FilledPrompt:
    texts = dict.fromkeys(PLACES, "plain words")
    texts[place] = f"before {text} after"
    image = JudgeImage(Image.new("RGB", (112, 112), "white"), "white")
    comparison = Comparison(texts["question"], (texts["response 1"], texts["response 2"]), (image,))
    prompt = release.judge.prompts["rubric_given"]
    return prompt.fill(comparison, release.judge.neutralise, Rubric(texts["rubric"]))


def ids(renderer: PromptRenderer, prompt: FilledPrompt) -> list[int]:
    return asyncio.run(renderer.token_ids(prompt))


def token_id(renderer: PromptRenderer, token: str) -> int:
    return asyncio.run(renderer.token_ids(FilledPrompt("", ()), token))[-1]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("token", RELEASE.judge.neutralise.special_tokens)
def test_a_control_token_stays_text(renderer: PromptRenderer, token: str, place: str) -> None:
    control_ids = {token_id(renderer, t) for t in RELEASE.judge.neutralise.special_tokens}
    assert len(control_ids) == len(RELEASE.judge.neutralise.special_tokens)
    benign = Counter(ids(renderer, prompt_with("a word", place)))
    prompt = prompt_with(token, place)
    hostile = Counter(ids(renderer, prompt))
    assert {i: hostile[i] for i in control_ids} == {i: benign[i] for i in control_ids}
    assert prompt.injection_attempts == 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_stays_text(renderer: PromptRenderer, tag: str, place: str) -> None:
    def tags_in(prompt: FilledPrompt) -> Counter[str]:
        text = "".join(part for part in prompt.user if isinstance(part, str))
        return Counter({name: text.count(name) for name in TAGS})

    benign, hostile = prompt_with("a word", place), prompt_with(tag, place)
    assert tags_in(hostile) == tags_in(benign)
    assert hostile.injection_attempts == 1
    tag_ids = asyncio.run(renderer.token_ids(FilledPrompt("", ()), tag))
    tail = asyncio.run(renderer.token_ids(FilledPrompt("", ()), ""))
    sequence = tag_ids[len(tail) :]
    assert occurrences(sequence, ids(renderer, hostile)) == occurrences(
        sequence, ids(renderer, benign)
    )


def occurrences(sequence: list[int], of: list[int]) -> int:
    width = len(sequence)
    return sum(of[start : start + width] == sequence for start in range(len(of) - width + 1))


def test_without_the_transform_the_danger_is_real(renderer: PromptRenderer) -> None:
    pad = token_id(renderer, "<|image_pad|>")
    image = JudgeImage(Image.new("RGB", (112, 112), "white"), "white")
    raw = FilledPrompt("", ("<|image_pad|>", image))
    assert ids(renderer, raw).count(pad) != ids(renderer, FilledPrompt("", (image,))).count(pad)


def test_tenants_share_nothing_that_the_engine_caches(renderer: PromptRenderer) -> None:
    for tenant in ("default", "team-a"):
        with acting_for(tenant):
            rendered = asyncio.run(renderer.render(prompt_with("a word", "question")))
        assert rendered["cache_salt"] == tenant


def test_ordinary_text_is_rendered_as_it_is(renderer: PromptRenderer) -> None:
    text = "if x < 5 and y > 3: <b>bold</b> & “quotes” 你好 🙂 {images} %s"
    prompt = prompt_with(text, "question")
    assert prompt.injection_attempts == 0
    assert any(text in part for part in prompt.user if isinstance(part, str))
