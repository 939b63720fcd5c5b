"""Pictures in whatever form the caller has them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


@runtime_checkable
class PilImage(Protocol):
    """What of a ``PIL.Image.Image`` is used; the package itself need not be installed."""

    @property
    def mode(self) -> str:
        """``RGB``, ``CMYK`` and so on."""
        ...

    def convert(self, mode: str) -> Any:
        """The picture in another mode."""
        ...

    def save(self, fp: Any, format: str) -> None:
        """Writes the picture."""
        ...


ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | PilImage
"""A path, a ``data:`` URI, the bytes of a JPEG/PNG/WebP file, or a PIL image."""


def encode_images(images: Sequence[ImageLike]) -> list[dict[str, str]]:
    """The pictures on the wire.

    Raises:
        OSError: a path cannot be read.
        TypeError: something that is none of the known forms.
    """
    return [{"data": _encode(image)} for image in images]


def _encode(image: object) -> str:
    if isinstance(image, str) and image.startswith("data:"):
        return image
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            return base64.b64encode(file.read()).decode()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return base64.b64encode(image).decode()
    if isinstance(image, PilImage):
        png = io.BytesIO()
        (image if image.mode in _PNG_MODES else image.convert("RGB")).save(png, format="PNG")
        return base64.b64encode(png.getvalue()).decode()
    raise TypeError(
        f"an image is a path, bytes, a data: URI or a PIL image, not {type(image).__name__}"
    )
