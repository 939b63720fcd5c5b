from __future__ import annotations

import io

import pytest
from PIL import Image

from models.pictures import as_seen, shrink


def _reopened(image: Image.Image, form: str, **options: object) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return Image.open(io.BytesIO(stream.getvalue()))


def test_transparency_is_white_paper() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert as_seen(clear).getpixel((1, 1)) == (255, 255, 255)


def test_a_transparent_palette_entry_is_white_paper() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] * 256)
    assert as_seen(_reopened(palette, "PNG", transparency=0)).getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = Image.new("I;16", (4, 4), 0x8000)
    assert as_seen(_reopened(grey, "PNG")).getpixel((1, 1)) == (128, 128, 128)


def test_a_picture_is_turned_as_its_orientation_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = as_seen(_reopened(Image.new("RGB", (10, 4)), "JPEG", exif=exif))
    assert turned.size == (4, 10)


def test_a_small_picture_is_left_alone() -> None:
    image = Image.new("RGB", (10, 10))
    assert shrink(image, 100) is image


@pytest.mark.parametrize("size", [(400, 300), (301, 299), (5000, 2), (1, 100_000)])
def test_a_large_picture_fits_afterwards(size: tuple[int, int]) -> None:
    width, height = shrink(Image.new("RGB", size), 784).size
    assert width * height <= 784
    assert min(width, height) >= 1


def test_proportions_are_kept() -> None:
    assert shrink(Image.new("RGB", (800, 400)), 20_000).size == (200, 100)


def test_a_very_long_picture_is_squeezed_and_not_made_thin() -> None:
    width, height = shrink(Image.new("RGB", (28_000, 140)), 100_352, shortest_side=28).size
    assert height == 28
    assert width * height <= 100_352
