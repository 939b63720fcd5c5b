from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from proxy_grm_client.images import encode_images


@pytest.fixture
def png(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    Image.new("RGB", (8, 6), "teal").save(file)
    return file


def sent(image: object) -> bytes:
    [encoded] = encode_images([image])  # pyright: ignore[reportArgumentType]
    assert set(encoded) == {"data"}
    return base64.b64decode(encoded["data"], validate=True)


def test_a_path_is_read(png: Path):
    assert sent(png) == sent(str(png)) == png.read_bytes()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_sent_as_they_are(kind: type, png: Path):
    assert sent(kind(png.read_bytes())) == png.read_bytes()


def test_a_data_uri_is_left_alone():
    uri = "data:image/png;base64,AAAA"
    assert encode_images([uri]) == [{"data": uri}]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "I;16"])
def test_a_pil_image_is_sent_without_loss(mode: str):
    image = Image.new(mode, (8, 6))
    found = Image.open(io.BytesIO(sent(image)))
    assert (found.format, found.size) == ("PNG", (8, 6))
    assert found.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_a_pil_image_whose_mode_png_does_not_know_is_sent_too(mode: str):
    image = Image.new("RGB", (8, 6), (255, 0, 0)).convert(mode)
    found = Image.open(io.BytesIO(sent(image))).convert("RGB").getpixel((4, 3))
    assert isinstance(found, tuple)
    assert found[0] > 240
    assert max(found[1:]) < 15


@pytest.mark.parametrize("url", ["https://host/cat.jpg", "http://host/cat.jpg"])
def test_a_url_is_for_the_service_to_fetch(url: str):
    assert encode_images([url]) == [{"url": url}]


def test_an_image_as_it_stands_on_the_wire_is_left_alone():
    assert encode_images([{"data": "AAAA"}, {"url": "https://host/cat.jpg"}]) == [
        {"data": "AAAA"},
        {"url": "https://host/cat.jpg"},
    ]


def test_an_image_as_data_sets_keep_it_is_read(png: Path):
    held = png.read_bytes()
    assert sent({"bytes": held, "path": None}) == sent({"bytes": None, "path": str(png)}) == held


def test_several_pictures_keep_their_order(png: Path):
    first, second = encode_images([b"a", png])
    assert base64.b64decode(first["data"]) == b"a"
    assert base64.b64decode(second["data"]) == png.read_bytes()


def test_nothing_is_nothing():
    assert encode_images([]) == []


@pytest.mark.parametrize("wrong", [None, 5, ["cat.png"], object()])
def test_anything_else_is_a_type_error_that_says_what_is_taken(wrong: object):
    with pytest.raises(
        TypeError,
        match="an image is a path, a URL, bytes, a data: URI",
    ):
        encode_images([wrong])  # pyright: ignore[reportArgumentType]


def test_a_path_that_is_not_there_is_an_os_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        encode_images([tmp_path / "absent.png"])


_WITHOUT_PIL = """
import sys
sys.modules["PIL"] = None
from proxy_grm_client.images import encode_images
print(encode_images([b"x"]))
imported = {name for name, module in sys.modules.items() if module}
print(sorted({"PIL", "numpy", "torch", "service", "models"} & imported))
"""


def test_nothing_but_httpx_and_pydantic_is_needed():
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PIL],
        capture_output=True,
        text=True,
        timeout=60,
        env={},
        check=True,
    )
    assert ran.stdout.splitlines() == ["[{'data': 'eA=='}]", "[]"]


@pytest.mark.parametrize(
    "single",
    [
        "cat.jpg",
        Path("cat.jpg"),
        b"x",
        {"data": "AAAA"},
        Image.new("RGB", (8, 6)),
        np.zeros((8, 6, 3), np.uint8),
        torch.zeros(3, 8, 6),
    ],
)
def test_a_single_picture_is_no_list_of_them(single: Any):
    with pytest.raises(TypeError, match=r"a list of pictures, not a single one"):
        encode_images(single)


@pytest.mark.parametrize("several", [np.zeros((2, 8, 6, 3), np.uint8), torch.zeros(2, 3, 8, 6)])
def test_an_array_of_pictures_is_a_list_of_them(several: Any):
    assert len(encode_images(several)) == 2


def test_whole_numbers_a_pixel_are_sent_as_png_has_them():
    image = Image.new("I", (8, 6), 40_000)
    found = Image.open(io.BytesIO(sent(image)))
    assert (found.mode, found.getpixel((3, 3))) == ("I;16", 40_000)


def test_an_empty_file_is_named(tmp_path: Path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png is empty"):
        encode_images([tmp_path / "empty.png"])
