"""The images of records: found inside their folder, checked, decoded. Nothing is ever fetched."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagehash
from PIL import Image

from models.errors import ModelsError
from models.pictures import as_seen
from models.training.data.drops import DropReason
from models.training.data.records import ImageRef

FORMATS = ("JPEG", "PNG", "WEBP")
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""A JPEG with previews inside calls itself MPO once it is open."""


class ImageRefused(ModelsError):
    """An image cannot be used; `reason` is one of the ``image_…`` reasons."""

    def __init__(self, reason: DropReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is decoded at all. The header is checked before a pixel is."""

    encoded_bytes: int = 32 * 2**20
    pixels: int = 25_000_000


@dataclass(frozen=True, slots=True)
class ImageLook:
    """What filters need to know of an image.

    Attributes:
        sha256: of the encoded bytes: two images with the same one are the same.
        suffix: the ending of its file, by its format.
        phash: 64 bits; similar pictures differ in few of them.
    """

    sha256: str
    suffix: str
    width: int
    height: int
    phash: int


Look = Callable[[ImageRef], ImageLook]
"""Looks at an image. Raises `ImageRefused`."""

_LIMITS = ImageLimits()


def load_image(ref: ImageRef, folder: Path, limits: ImageLimits = _LIMITS) -> Image.Image:
    """The image as RGB, upright, transparency over white.

    Args:
        ref: of a record.
        folder: that of the record file. A path that leaves it is refused, and so is a URL.
        limits: what is decoded at all.

    Raises:
        ImageRefused: it is outside the folder or the limits, missing or damaged.
    """
    return decode_image(image_bytes(ref, folder, limits), limits)


def look_in(folder: Path, limits: ImageLimits = _LIMITS) -> Look:
    """Looks at images of a folder; each file is decoded once."""
    seen: dict[str, ImageLook] = {}

    def look(ref: ImageRef) -> ImageLook:
        if ref.path is None:
            return look_at(image_bytes(ref, folder, limits), limits)
        if ref.path not in seen:
            seen[ref.path] = look_at(image_bytes(ref, folder, limits), limits)
        return seen[ref.path]

    return look


def look_at(content: bytes, limits: ImageLimits = _LIMITS) -> ImageLook:
    """Decodes the whole image, so that a cut-off one is found now and not in training.

    Raises:
        ImageRefused: it is damaged or larger than the limits.
    """
    opened = _opened(content, limits)
    suffix = _SUFFIXES[opened.format or ""]
    image = _seen(opened)
    phash = int(str(imagehash.phash(image)), 16)
    return ImageLook(hashlib.sha256(content).hexdigest(), suffix, image.width, image.height, phash)


def decode_image(content: bytes, limits: ImageLimits = _LIMITS) -> Image.Image:
    """Encoded bytes as RGB, upright, transparency over white.

    Raises:
        ImageRefused: the bytes are damaged or larger than the limits.
    """
    return _seen(_opened(content, limits))


def image_bytes(ref: ImageRef, folder: Path, limits: ImageLimits = _LIMITS) -> bytes:
    """The encoded bytes, unchecked.

    Raises:
        ImageRefused: the path leaves the folder, nothing is there, or it is too large.
    """
    if ref.data is not None:
        if len(ref.data) > limits.encoded_bytes * 4 // 3 + 4:
            raise _too_large(limits)
        try:
            return base64.b64decode(ref.data, validate=True)
        except (binascii.Error, ValueError) as cause:
            raise ImageRefused(DropReason.IMAGE_DAMAGED, "not valid base64") from cause
    path = _inside(ref.path or "", folder)
    try:
        if not path.is_file():  # a pipe would be waited for
            raise ImageRefused(DropReason.IMAGE_MISSING, f"no file {ref.path!r} in {folder}")
        with path.open("rb") as stream:
            content = stream.read(limits.encoded_bytes + 1)
    except (OSError, ValueError) as cause:
        raise ImageRefused(DropReason.IMAGE_MISSING, f"{ref.path!r} cannot be read") from cause
    if len(content) > limits.encoded_bytes:
        raise _too_large(limits)
    return content


def _inside(path: str, folder: Path) -> Path:
    if "://" in path or path.startswith("data:"):
        raise ImageRefused(DropReason.IMAGE_REFUSED, "URLs are not fetched: give a file")
    try:
        # Links are followed first: one may point outside.
        found, root = (folder / path).resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError) as cause:
        raise ImageRefused(DropReason.IMAGE_REFUSED, f"{path!r} is not a path") from cause
    if not found.is_relative_to(root):
        raise ImageRefused(DropReason.IMAGE_REFUSED, f"{path!r} leaves the folder of its records")
    return found


def _opened(content: bytes, limits: ImageLimits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise _too_large(limits) from cause
    except Exception as cause:  # decoders raise whatever they like
        raise _damaged() from cause
    if image.width * image.height > limits.pixels:
        raise _too_large(limits)
    return image


def _seen(image: Image.Image) -> Image.Image:
    try:
        return as_seen(image)
    except Exception as cause:
        raise _damaged() from cause


def _too_large(limits: ImageLimits) -> ImageRefused:
    bounds = f"{limits.encoded_bytes} bytes or {limits.pixels} pixels"
    return ImageRefused(DropReason.IMAGE_TOO_LARGE, f"more than {bounds}")


def _damaged() -> ImageRefused:
    return ImageRefused(DropReason.IMAGE_DAMAGED, "damaged, or not a JPEG, PNG or WebP")
