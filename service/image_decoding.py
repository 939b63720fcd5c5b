"""What a child process does with a picture: check its header, decode it, shrink it.

The header is read before a pixel is decoded, so that a file that claims
30,000 x 30,000 pixels costs nothing. What a decoder has to say about a bad file
is said to nobody: its messages have leaked addresses (CVE-2026-22778).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from PIL import Image

from models.pictures import as_seen, shrink
from service.process_pool import Refused

FORMATS = ("JPEG", "PNG", "WEBP")
DAMAGED = "the image is damaged or not a JPEG, PNG or WebP"

CPU_S = 4
"""What decoding may take; 25,000,000 pixels of noise, as PNG or in ten scans, take less than 1."""

_MOST_SCANS = 100  # encoders make about ten; each costs a pass over all pixels, and 42 bytes
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # no stuffing, filling or restart
_START_OF_SCAN, _START, _END = 0xDA, 0xD8, 0xD9
_SHORTEST_SIDE = 28  # one merged patch of Qwen2.5-VL; 1 x 1 has killed engines (CVE-2026-22773)
_WIDEST_ASPECT = 100


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of a picture is looked at.

    Attributes:
        header_pixels: width times height, at most; more is refused.
        shrink_to_pixels: the area that a larger one is made to fit.
    """

    header_pixels: int
    shrink_to_pixels: int


def decode(content: bytes, bounds: Bounds) -> tuple[tuple[int, int], bytes]:
    """Width and height, and RGB of a JPEG, PNG or WebP file.

    Raises:
        Refused: it is none or is outside the bounds.
        Exception: whatever the decoder raises about damaged contents.
    """
    image = _opened(content, bounds)
    largest = bounds.shrink_to_pixels
    if image.format == "JPEG":  # lets the decoder itself skip what would be thrown away
        width, height = image.size
        scale = (largest / (width * height)) ** 0.5
        image.draft("RGB", (max(1, int(width * scale)), max(1, int(height * scale))))
    rgb = shrink(as_seen(image), largest, _SHORTEST_SIDE)
    return rgb.size, rgb.tobytes()


def _opened(content: bytes, bounds: Bounds) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # our own bound, below, is checked before decoding
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception:
        raise Refused(DAMAGED) from None
    width, height = image.size
    if width * height > bounds.header_pixels:
        raise Refused(f"the image has more than {bounds.header_pixels} pixels")
    if min(width, height) < _SHORTEST_SIDE:
        raise Refused(f"the image is less than {_SHORTEST_SIDE} pixels wide or high")
    if max(width, height) > _WIDEST_ASPECT * min(width, height):
        raise Refused(f"the image is more than {_WIDEST_ASPECT} times as long as it is wide")
    # The further pictures in a phone's JPEG (MPO) are previews, not an animation.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise Refused("the image is animated; send one frame")
    if image.format in ("JPEG", "MPO") and _has_too_many_scans(content):
        raise Refused(f"the image has more than {_MOST_SCANS} scans")
    return image


def _has_too_many_scans(jpeg: bytes) -> bool:
    """Goes from marker to marker as decoders do, up to the end of the first picture."""
    scans = at = 0
    while (found := _MARKER.search(jpeg, at)) is not None:
        at, marker = found.end(), found[0][1]
        if marker == _END:
            return False
        if marker == _START_OF_SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                return True
        if marker != _START:
            at += int.from_bytes(jpeg[at : at + 2])
    return False
