from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

Within = Callable[[float], AbstractContextManager[None]]

RELEASE_TOML = """\
name = "small"
purpose = "production"
base_model = "none"
context_tokens = 1024

[sampling]
judgement_tokens = 64
rubric_tokens = 32

[images]
maximum = 1
most_pixels = 3136

[calibration.full.given]
temperature = 1.5
"""
WRITE_RUBRIC = """\
[system]
Compare.
[user]
{images}
<question>
{question}
</question>
<response_1>
{response_1}
</response_1>
<response_2>
{response_2}
</response_2>
"""
RUBRIC_GIVEN = WRITE_RUBRIC.replace(
    "<response_1>", "<rubric>\n{rubric}\n</rubric>\n<response_1>", 1
)
PROXY = WRITE_RUBRIC.rstrip() + "\n<rubric>\n{rubric}\n</rubric>\n"
TOKENIZER = {
    "added_tokens": [
        {"id": 0, "content": "<|im_start|>", "special": True},
        {"id": 1, "content": "<|im_end|>", "special": True},
        {"id": 2, "content": "<|image_pad|>", "special": True},
        {"id": 3, "content": "<tool_call>", "special": False},
    ]
}


@pytest.fixture
def within() -> Within:
    """Makes a block fail that takes longer than so many seconds, even inside one regex match."""

    @contextmanager
    def limit(seconds: float) -> Iterator[None]:
        def stop(*_: object) -> None:
            raise TimeoutError(f"still running after {seconds} s")

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return limit


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A plain model in the Hugging Face layout, its weights a few bytes."""
    folder = tmp_path / "My-Model-7B"
    write_model(folder)
    return folder


@pytest.fixture
def release_folder(tmp_path: Path) -> Path:
    """A complete release of small files."""
    folder = tmp_path / "small"
    write_model(folder / "judge")
    (folder / "release.toml").write_text(RELEASE_TOML)
    (folder / "prompts").mkdir()
    (folder / "prompts" / "write_rubric.txt").write_text(WRITE_RUBRIC)
    (folder / "prompts" / "rubric_given.txt").write_text(RUBRIC_GIVEN)
    return folder


@pytest.fixture
def proxy_release_folder(release_folder: Path) -> Path:
    """The same release with a proxy, whose tokenizer has a control token of its own."""
    write_model(release_folder / "proxy")
    added = [*TOKENIZER["added_tokens"], {"id": 4, "content": "<think>", "special": True}]
    (release_folder / "proxy" / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (release_folder / "prompts" / "proxy.txt").write_text(PROXY)
    with (release_folder / "release.toml").open("a") as file:
        file.write("\n[proxy]\ntokens = 48\n")
    return release_folder


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "fake"}')
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("# A model\n")
