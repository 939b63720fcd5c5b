from __future__ import annotations

import base64
import io
import os
import struct
import zlib

import pytest
from PIL import Image

from models.training.data.drops import DropReason
from models.training.data.images import ImageLimits, ImageRefused, load_image, look_at, look_in
from models.training.data.records import ImageRef


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def inline(content):
    return ImageRef(data=base64.b64encode(content).decode())


def png_that_claims(width, height):
    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refusal(ref, folder, limits=None):
    with pytest.raises(ImageRefused) as refused:
        load_image(ref, folder, limits or ImageLimits())
    return refused.value.reason


@pytest.fixture
def folder(tmp_path, make_image):
    (tmp_path / "secret.jpg").write_bytes(make_image(1))
    records = tmp_path / "records"
    (records / "images").mkdir(parents=True)
    (records / "images" / "a.jpg").write_bytes(make_image(2))
    return records


def test_a_file_of_the_folder_is_loaded_as_rgb(folder):
    image = load_image(ImageRef(path="images/a.jpg"), folder)
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert load_image(ImageRef(path="images/../images/a.jpg"), folder).size == (64, 48)


@pytest.mark.parametrize(
    "path",
    ["../secret.jpg", "images/../../secret.jpg", "/etc/hostname", "https://example.com/a.jpg",
     "file:///etc/hostname", "data:image/png;base64,AAAA", "a\0b", "..", "link.jpg"],
)  # fmt: skip
def test_what_leaves_the_folder_is_refused(folder, path):
    (folder / "link.jpg").symlink_to(folder.parent / "secret.jpg")
    assert refusal(ImageRef(path=path), folder) == DropReason.IMAGE_REFUSED
    absolute = str(folder.parent / "secret.jpg")
    assert refusal(ImageRef(path=absolute), folder) == DropReason.IMAGE_REFUSED


def test_a_loop_of_links_does_not_hang(folder):
    (folder / "loop").symlink_to("loop")
    with pytest.raises(ImageRefused):
        load_image(ImageRef(path="loop/a.jpg"), folder)


def test_what_is_no_file_is_missing(folder):
    os.mkfifo(folder / "pipe.jpg")
    for path in ("absent.jpg", "images", "pipe.jpg", "", "x" * 5000):
        assert refusal(ImageRef(path=path), folder) == DropReason.IMAGE_MISSING


@pytest.mark.parametrize("content", [b"", b"not an image", b"<svg></svg>", b"GIF89a" + b"\0" * 50])
def test_what_is_no_known_image_is_damaged(folder, content):
    assert refusal(inline(content), folder) == DropReason.IMAGE_DAMAGED


def test_a_cut_off_image_is_damaged(folder, make_image):
    assert refusal(inline(make_image(1)[:-200]), folder) == DropReason.IMAGE_DAMAGED
    assert refusal(ImageRef(data="%%%"), folder) == DropReason.IMAGE_DAMAGED


@pytest.mark.parametrize("side", [6_000, 10_000, 30_000])
def test_a_bomb_is_too_large_and_is_not_decoded(folder, side, within):
    with within(5):
        assert refusal(inline(png_that_claims(side, side)), folder) == DropReason.IMAGE_TOO_LARGE


def test_the_limits_hold_for_files_and_inline(folder, make_image):
    few = ImageLimits(encoded_bytes=100)
    assert refusal(ImageRef(path="images/a.jpg"), folder, few) == DropReason.IMAGE_TOO_LARGE
    assert refusal(inline(make_image(1)), folder, few) == DropReason.IMAGE_TOO_LARGE
    small = ImageLimits(pixels=64 * 48 - 1)
    assert refusal(ImageRef(path="images/a.jpg"), folder, small) == DropReason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(folder, mode):
    content = encoded(Image.new(mode, (40, 30)))
    assert load_image(inline(content), folder).mode == "RGB"


def test_transparency_is_white_and_16_bits_are_scaled(folder):
    clear = encoded(Image.new("RGBA", (40, 30), (255, 0, 0, 0)))
    assert load_image(inline(clear), folder).getpixel((3, 3)) == (255, 255, 255)
    grey = encoded(Image.new("I;16", (40, 30), 32768))
    assert load_image(inline(grey), folder).getpixel((3, 3)) == (128, 128, 128)


def test_a_turned_photograph_is_set_upright(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (40, 30)), "JPEG", exif=exif)
    assert load_image(inline(content), folder).size == (30, 40)
    assert look_at(content).width == 30


def test_similar_pictures_have_near_hashes_and_others_do_not(make_image):
    one = look_at(make_image(5, (320, 240)))
    smaller = look_at(make_image(5, (320, 240), "PNG"))
    other = look_at(make_image(6, (320, 240)))
    assert (one.phash ^ smaller.phash).bit_count() <= 4
    assert (one.phash ^ other.phash).bit_count() > 10
    assert (one.suffix, smaller.suffix) == (".jpg", ".png")


def test_a_file_is_looked_at_once(folder, make_image):
    look = look_in(folder)
    before = look(ImageRef(path="images/a.jpg"))
    (folder / "images" / "a.jpg").unlink()
    assert look(ImageRef(path="images/a.jpg")) is before
    assert look(inline(make_image(2))) == before
