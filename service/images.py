"""Pictures: check, decode in a process pool, shrink to the release's limit.

The header is read before a pixel is decoded, so that a file that claims
30,000 x 30,000 pixels costs nothing. What a decoder has to say about a bad file
stays in the log: its messages have leaked addresses (CVE-2026-22778).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import multiprocessing
import os
import re
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import structlog
from PIL import Image

from models.comparison import JudgeImage
from models.pictures import as_seen, shrink
from service.child_process import end_with_spawner
from service.errors import ImageRejected
from service.settings import LimitSettings

_log = structlog.get_logger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP")
_SHORTEST_SIDE = 28  # one merged patch of Qwen2.5-VL; 1 x 1 has killed engines (CVE-2026-22773)
_WIDEST_ASPECT = 100
_TRIES = 3
_DATA_URI = re.compile(r"\Adata:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Bounds:
    encoded_bytes: int
    header_pixels: int
    shrink_to_pixels: int


class _Refused(Exception):
    """Raised in a pool process, which knows nothing of the service's errors."""


class Images:
    """Turns what a client sent into what a judge can look at."""

    def __init__(self, limits: LimitSettings, most_pixels: int) -> None:
        self._bounds = _Bounds(limits.image_bytes, limits.image_pixels, most_pixels)
        self._workers = max(1, min(4, (os.cpu_count() or 2) // 2))
        self._pool = self._new_pool()

    async def close(self) -> None:
        """Ends the pool's processes."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def decode(self, encoded: str) -> JudgeImage:
        """Base64 or a data URI of a JPEG, PNG or WebP, as RGB inside the pixel limit.

        Raises:
            ImageRejected: it is none, is damaged, or is outside the bounds.
        """
        for _ in range(_TRIES):
            pool = self._pool
            try:
                size, rgb, identity = await asyncio.get_running_loop().run_in_executor(
                    pool, _decode, encoded, self._bounds
                )
            except _Refused as refused:
                raise ImageRejected(str(refused)) from None
            except BrokenProcessPool:  # this picture's doing, or that of one beside it
                _log.warning("an image process died")
                if pool is self._pool:
                    self._pool = self._new_pool()
            except Exception as error:
                _log.info("image rejected", error=type(error).__name__)
                raise ImageRejected("the image is damaged or not a JPEG, PNG or WebP") from None
            else:
                return JudgeImage(Image.frombytes("RGB", size, rgb), identity)
        raise ImageRejected("the image could not be decoded")

    def _new_pool(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(
            self._workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_process,
        )
        for _ in range(self._workers):
            pool.submit(int)  # a process starts with its first task: not with the first picture
        return pool


def _prepare_process() -> None:
    end_with_spawner()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the gateway decides


def _decode(encoded: str, bounds: _Bounds) -> tuple[tuple[int, int], bytes, str]:
    content = _content(encoded, bounds)
    image = _opened(content, bounds)
    largest = bounds.shrink_to_pixels
    if image.format == "JPEG":  # lets the decoder itself skip what would be thrown away
        width, height = image.size
        scale = (largest / (width * height)) ** 0.5
        image.draft("RGB", (max(1, int(width * scale)), max(1, int(height * scale))))
    rgb = shrink(as_seen(image), largest, _SHORTEST_SIDE)
    digest = hashlib.sha256(content).hexdigest()
    return rgb.size, rgb.tobytes(), f"{digest}@{largest}"


def _content(encoded: str, bounds: _Bounds) -> bytes:
    header = _DATA_URI.match(encoded)
    payload = encoded[header.end() :] if header else encoded
    if len(payload) > bounds.encoded_bytes * 4 // 3 + 4:
        raise _Refused(f"the image is larger than {bounds.encoded_bytes} bytes")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise _Refused("the image is not valid base64") from None


def _opened(content: bytes, bounds: _Bounds) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # our own bound, below, is checked before decoding
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception:
        raise _Refused("the image is damaged or not a JPEG, PNG or WebP") from None
    width, height = image.size
    if width * height > bounds.header_pixels:
        raise _Refused(f"the image has more than {bounds.header_pixels} pixels")
    if min(width, height) < _SHORTEST_SIDE:
        raise _Refused(f"the image is less than {_SHORTEST_SIDE} pixels wide or high")
    if max(width, height) > _WIDEST_ASPECT * min(width, height):
        raise _Refused(f"the image is more than {_WIDEST_ASPECT} times as long as it is wide")
    # The further pictures in a phone's JPEG (MPO) are previews, not an animation.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _Refused("the image is animated; send one frame")
    return image
