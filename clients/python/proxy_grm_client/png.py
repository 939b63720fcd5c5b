"""Arrays as PNG files, without a picture library."""

from __future__ import annotations

import math
import struct
import sys
import zlib
from typing import Any

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, grey + alpha, RGB, RGBA
_QUICK = 1  # of zlib's levels; the picture stays on the way for milliseconds


def encoded_array(image: object) -> bytes | None:
    """A numpy array or a torch tensor as a PNG; None for anything else.

    Neither package is imported: where it has not been, nothing can be of its kind.

    Args:
        image: numpy: uint8, height × width (× channels). torch: channels × height × width
            (or height × width), float in 0..1, or uint8. 1, 3 or 4 channels, or 2: grey and alpha.

    Raises:
        ValueError: another shape, type or range; the message says what is taken.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(image, numpy.ndarray):
        return _from_numpy(image)
    if torch is not None and isinstance(image, torch.Tensor):
        return _from_torch(image, torch)
    return None


def _from_numpy(array: Any) -> bytes:
    if array.dtype != "uint8":
        raise ValueError(f"a numpy image is uint8, height × width × channels, not {array.dtype}")
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    return _png(shape, array.tobytes())


def _from_torch(tensor: Any, torch: Any) -> bytes:
    pixels = tensor.detach().cpu()
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.is_floating_point():
        least, most = (float(found) for found in pixels.aminmax()) if pixels.numel() else (0, 0)
        if not (0 <= least <= most <= 1) or math.isnan(least):
            raise ValueError(
                "a float tensor is an image in 0..1; this one is not, or is normalised"
            )
        pixels = pixels.float().mul(255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8 or pixels.ndim != 3:
        raise ValueError(
            "a torch image is float in 0..1 or uint8, channels × height × width, "
            f"not {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    hwc = pixels.permute(1, 2, 0).contiguous()
    return _png(tuple(hwc.shape), hwc.numpy().tobytes())


def _png(shape: tuple[int, ...], pixels: bytes) -> bytes:
    if len(shape) != 3 or shape[2] not in _COLOR_TYPES or 0 in shape:
        raise ValueError(f"an image has a height, a width and 1 to 4 channels, not shape {shape}")
    height, width, channels = shape
    stride = width * channels
    rows = b"".join(b"\0" + pixels[row * stride : (row + 1) * stride] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPES[channels], 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(rows, _QUICK)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
