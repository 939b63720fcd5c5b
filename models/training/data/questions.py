"""Records as a teacher is asked about them: our own prompt, and the images inside it."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from models.comparison import Comparison, JudgeImage
from models.errors import ModelsError
from models.judgement import GRAMMAR_REVISION
from models.neutralise import NEUTRALISE_REVISION, Neutraliser
from models.pictures import shrink
from models.prompts import FilledPrompt, read_prompts
from models.release import control_tokens
from models.training.data.records import ImageRef, PreferenceRecord

Messages = list[dict[str, Any]]
"""The ``messages`` of a chat completion request."""

LoadImage = Callable[[ImageRef], Image.Image]
"""Gives an image as RGB, upright. Called from threads; whatever it raises is a `bad_image`."""

QWEN_VL_TOKENS = (
    *(f"<|{name}|>" for name in ("endoftext", "im_start", "im_end", "repo_name", "file_sep")),
    *(f"<|{name}_{end}|>" for name in ("object_ref", "box", "quad") for end in ("start", "end")),
    *(f"<|vision_{name}|>" for name in ("start", "end", "pad")),
    *("<|image_pad|>", "<|video_pad|>"),
    *(f"<|fim_{name}|>" for name in ("prefix", "middle", "suffix", "pad")),
    *(
        f"<{slash}{name}>"
        for name in ("tool_call", "tool_response", "think")
        for slash in ("", "/")
    ),
)
"""The control tokens of Qwen2.5-VL and Qwen3-VL together."""


class BadImage(ModelsError):
    """An image of a record cannot be shown to a teacher."""


class Questions:
    """Makes requests of records.

    Args:
        prompts_dir: of ``write_rubric.txt``.
        tokenizer_dir: of the teacher's ``tokenizer.json``; None: `QWEN_VL_TOKENS`.
        image_pixels: larger images are shrunk to this area.

    Raises:
        ReleaseInvalid: the prompt or the tokenizer cannot be read.
    """

    def __init__(
        self,
        prompts_dir: Path,
        tokenizer_dir: Path | None,
        image_pixels: int,
        load_image: LoadImage,
    ) -> None:
        self._prompt = read_prompts(prompts_dir)["write_rubric"]
        tokens = control_tokens(tokenizer_dir) if tokenizer_dir is not None else QWEN_VL_TOKENS
        self._neutralise = Neutraliser(tokens)
        self._image_pixels = image_pixels
        self._load_image = load_image

    def settings(self) -> dict[str, Any]:
        """Whatever makes a request of a record, as JSON values."""
        return {
            "prompt": _digest(repr(self._prompt)),
            "control_tokens": _digest(repr(sorted(self._neutralise.special_tokens))),
            "image_pixels": self._image_pixels,
            "rules": [GRAMMAR_REVISION, NEUTRALISE_REVISION],
        }

    def messages(self, record: PreferenceRecord) -> Messages:
        """What is asked about a record. Its label, source and meta are no part of it.

        Raises:
            BadImage: an image cannot be loaded or sent.
        """
        images = [self._image(ref) for ref in record.images]
        comparison = Comparison(record.question, record.responses, tuple(images))
        return self._chat(self._prompt.fill(comparison, self._neutralise))

    def _image(self, ref: ImageRef) -> JudgeImage:
        try:
            return JudgeImage(self._load_image(ref).convert("RGB"), identity="")
        except Exception as cause:  # decoders raise whatever they like
            named = ref.path or "inline image"
            raise BadImage(f"{named}: {type(cause).__name__}: {cause}") from cause

    def _chat(self, prompt: FilledPrompt) -> Messages:
        content: list[dict[str, Any]] = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": self._data_uri(part.pixels)}}
            for part in prompt.user
        ]
        return [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]

    def _data_uri(self, image: Image.Image) -> str:
        jpeg = io.BytesIO()
        try:
            # No chroma subsampling: thin coloured lines stay readable.
            shrink(image, self._image_pixels).save(jpeg, "JPEG", quality=95, subsampling=0)
        except (OSError, ValueError) as cause:  # longer than a JPEG can be
            raise BadImage(f"{image.width} x {image.height} pixels: no JPEG can be that") from cause
        return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
