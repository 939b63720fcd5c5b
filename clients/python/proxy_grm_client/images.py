"""Pictures in whatever form the caller has them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from proxy_grm_client.png import encoded_array

_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")


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

    def save(self, fp: Any, format: str, *, compress_level: int) -> None:
        """Writes the picture."""
        ...


@runtime_checkable
class Array(Protocol):
    """What numpy arrays and torch tensors have in common."""

    @property
    def shape(self) -> Any:
        """The size of each dimension."""
        ...

    @property
    def dtype(self) -> Any:
        """What an element is."""
        ...


ImageLike = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | PilImage | Array | Mapping[str, Any]
)
"""A path, an ``http(s)://`` URL (the service fetches it), a ``data:`` URI, the bytes of a
JPEG/PNG/WebP file, a PIL image, a numpy array (uint8, height × width × channels), a torch tensor
(float in 0..1, channels × height × width), an image as it stands on the wire, or one as data sets
keep it: ``{"bytes", "path"}``."""


def encode_images(images: Sequence[ImageLike]) -> list[dict[str, str]]:
    """The pictures on the wire.

    Raises:
        OSError: a path cannot be read.
        TypeError: something that is none of the known forms, or a picture in place of a list.
        ValueError: an array or a file that is no picture.
    """
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Mapping, PilImage)) or (
        isinstance(images, Array) and len(images.shape) in (2, 3)
    ):
        raise TypeError("images: a list of pictures, not a single one: [picture]")
    return [_encode(image) for image in images]


def _encode(image: object) -> dict[str, str]:
    if isinstance(image, Mapping):
        return _encode_mapping(image)
    if isinstance(image, str):
        if image.startswith("data:"):
            return {"data": image}
        if image.startswith(("http://", "https://")):
            return {"url": image}
    return {"data": base64.b64encode(_file_of(image)).decode()}


def _encode_mapping(image: Mapping[str, Any]) -> dict[str, str]:
    """As it stands on the wire, or as data sets keep pictures: ``bytes``, ``path`` or both."""
    if not image.keys() & {"bytes", "path"}:
        return {key: str(value) for key, value in image.items()}
    held = image.get("bytes")
    return _encode(image.get("path") if held is None else held)


def _file_of(image: object) -> bytes | bytearray | memoryview:
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            held = file.read()
        if not held:
            raise ValueError(f"{os.fspath(image)} is empty")
        return held
    if isinstance(image, (bytes, bytearray, memoryview)):
        return image
    if isinstance(image, PilImage):
        png = io.BytesIO()
        mode = "I;16" if image.mode == "I" else "RGB"
        known = image if image.mode in _PNG_MODES else image.convert(mode)
        known.save(png, format="PNG", compress_level=1)
        return png.getvalue()
    found = encoded_array(image)
    if found is None:
        raise TypeError(
            "an image is a path, a URL, bytes, a data: URI, a PIL image, a numpy array or "
            f"a torch tensor, not {type(image).__name__}"
        )
    return found
