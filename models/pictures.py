"""A picture as a person sees it, and small enough: in serving and in training alike."""

from __future__ import annotations

from PIL import Image, ImageOps

DEFAULT_MOST_PIXELS = 1_003_520
"""1,280 tokens of Qwen2.5-VL: 28 x 28 pixels each."""


def as_seen(image: Image.Image) -> Image.Image:
    """RGB, turned as its EXIF orientation says, transparency over white, 16-bit grey scaled to 8.

    Raises:
        Exception: whatever the decoder raises about damaged contents.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # would be clipped to white
        return upright.point(lambda value: value / 256).convert("L").convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return upright.convert("RGB")


def shrink(image: Image.Image, most_pixels: int, shortest_side: int = 1) -> Image.Image:
    """The picture within an area, its proportions kept as far as its sides allow.

    Args:
        image: returned as it is when it is small enough.
        most_pixels: width times height, at most.
        shortest_side: a very long picture would become thinner than this: it is squeezed.
    """
    width, height = image.size
    if width * height <= most_pixels:
        return image
    scale = (most_pixels / (width * height)) ** 0.5
    longest = most_pixels // shortest_side
    smaller = (
        min(longest, max(shortest_side, int(width * scale))),
        min(longest, max(shortest_side, int(height * scale))),
    )
    return image.resize(smaller, Image.Resampling.BICUBIC, reducing_gap=2.0)
