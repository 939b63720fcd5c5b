from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import random
import struct
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image
from skimage import data

from models.comparison import JudgeImage
from models.release import Release
from service.errors import ImageRejected
from service.images import GivenImage, Images
from service.process_pool import ProcessPool, TaskLost
from service.settings import CacheSettings, LimitSettings
from service.tenancy import acting_for

pytestmark = pytest.mark.anyio

MOST_PIXELS = 40_000
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
REASONS = (
    "the image is damaged or not a JPEG, PNG or WebP",
    "the image is not valid base64",
    "the image is animated; send one frame",
    "the image is less than 28 pixels wide or high",
    "the image is more than 100 times as long as it is wide",
    "the image has more than 25000000 pixels",
)


class CountingPool(ProcessPool):
    """Says how often it was asked."""

    asked = 0

    async def run_for(self, cpu_s: float, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return await super().run_for(cpu_s, function, *args, **kwargs)


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[CountingPool]:
    """One set of processes for all tests here."""
    started = CountingPool()
    yield started
    await started.close()


@pytest.fixture
def images(pool: CountingPool) -> Images:
    pool.asked = 0
    return Images(LimitSettings(), MOST_PIXELS, pool)


async def decoded(images: Images, encoded: str) -> JudgeImage:
    return await images.image(GivenImage(data=encoded))


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_that_claims(width: int, height: int, pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(pixels)) if pixels else b""
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + png_chunk(b"IEND", b"")


def halves(left: object, right: object, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    width, height = size
    image = Image.new(mode, size, right)  # pyright: ignore[reportArgumentType]
    image.paste(left, (0, 0, width // 2, height))  # pyright: ignore[reportArgumentType]
    return image


def near(found: object, wanted: tuple[int, int, int], off: int = 3) -> bool:
    assert isinstance(found, tuple)
    return all(abs(a - b) <= off for a, b in zip(found, wanted, strict=True))


JPEG = encoded(halves(RED, BLUE, (120, 90)), "JPEG", quality=95)
FRAMES = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encoded(halves(RED, BLUE, (120, 90)), "PNG"), id="png"),
        pytest.param(JPEG, id="jpeg"),
        pytest.param(encoded(halves(RED, BLUE, (120, 90)), "WEBP", lossless=True), id="webp"),
        pytest.param(
            encoded(halves(RED, BLUE, (120, 90)), "JPEG", progressive=True, quality=95),
            id="progressive jpeg",
        ),
    ],
)
async def test_a_picture_inside_the_limit_keeps_its_pixels(content: bytes, images: Images):
    found = await decoded(images, base64_of(content))
    assert found.pixels.mode == "RGB"
    assert found.pixels.size == (120, 90)
    assert near(found.pixels.getpixel((10, 45)), RED)
    assert near(found.pixels.getpixel((110, 45)), BLUE)


@pytest.mark.parametrize("kind", ["png", "jpeg", "x-icon", "PNG", "svg+xml"])
async def test_a_data_uri_is_read_by_its_content_and_not_by_its_name(kind: str, images: Images):
    found = await decoded(images, f"data:image/{kind};base64,{base64_of(JPEG)}")
    assert found == await decoded(images, base64_of(JPEG))


SIXTEEN_BIT_ROW = b"\x00\x40" * 32 + b"\xff\xff" * 32
ODD_MODES = {
    "rgba, transparent over white": (halves((255, 0, 0, 255), (0, 0, 0, 0), (64, 64), "RGBA"), {}),
    "grey with transparency": (halves((0, 255), (0, 0), (64, 64), "LA"), {}),
    "palette with transparency": (halves(1, 0, (64, 64), "P"), {"transparency": 0}),
    "one bit": (halves(0, 1, (64, 64), "1"), {}),
    "16-bit grey": (Image.frombytes("I;16", (64, 64), SIXTEEN_BIT_ROW * 64), {}),
    "grey": (halves(0x40, 0xFF, (64, 64), "L"), {}),
}
ODD_MODES["palette with transparency"][0].putpalette([0, 255, 0, *RED])
SEEN = {
    "rgba, transparent over white": (RED, WHITE),
    "grey with transparency": ((0, 0, 0), WHITE),
    "palette with transparency": (RED, WHITE),
    "one bit": ((0, 0, 0), WHITE),
    "16-bit grey": ((0x40, 0x40, 0x40), WHITE),
    "grey": ((0x40, 0x40, 0x40), WHITE),
}


@pytest.mark.parametrize("name", list(ODD_MODES))
async def test_a_png_of_any_mode_is_seen_as_a_person_sees_it(name: str, images: Images):
    image, options = ODD_MODES[name]
    found = (await decoded(images, base64_of(encoded(image, "PNG", **options)))).pixels
    assert found.mode == "RGB"
    left, right = SEEN[name]
    assert near(found.getpixel((8, 32)), left)
    assert near(found.getpixel((56, 32)), right)


async def test_a_cmyk_jpeg_has_the_colours_that_were_printed(images: Images):
    cmyk = halves((0, 255, 255, 0), (255, 255, 0, 0), (64, 64), "CMYK")
    found = (await decoded(images, base64_of(encoded(cmyk, "JPEG", quality=95)))).pixels
    assert near(found.getpixel((8, 32)), RED, off=12)
    assert near(found.getpixel((56, 32)), BLUE, off=12)


async def test_a_jpeg_that_was_taken_sideways_is_upright(images: Images):
    sideways = halves(RED, BLUE, (160, 80))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it as it was taken
    found = (
        await decoded(images, base64_of(encoded(sideways, "JPEG", exif=exif, quality=95)))
    ).pixels
    assert found.size == (80, 160)
    assert near(found.getpixel((40, 20)), RED)
    assert near(found.getpixel((40, 140)), BLUE)


async def test_a_photograph_of_several_megapixels_is_shrunk_into_the_limit(images: Images):
    photograph = Image.fromarray(data.astronaut()).resize((3000, 2400))
    content = encoded(photograph, "JPEG", quality=90)
    found = (await decoded(images, base64_of(content))).pixels
    width, height = found.size
    assert 0.97 * MOST_PIXELS <= width * height <= MOST_PIXELS
    assert width / height == pytest.approx(3000 / 2400, rel=0.02)
    expected = photograph.resize(found.size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    apart = [
        abs(a - b)
        for x in range(0, width, 10)
        for y in range(0, height, 10)
        for a, b in zip(found.getpixel((x, y)), expected.getpixel((x, y)), strict=True)  # pyright: ignore
    ]
    assert sum(apart) / len(apart) < 6


async def test_a_sideways_photograph_is_upright_after_shrinking_too(images: Images):
    exif = Image.Exif()
    exif[0x0112] = 8
    photograph = halves(RED, BLUE, (2000, 1000))
    found = (await decoded(images, base64_of(encoded(photograph, "JPEG", exif=exif)))).pixels
    width, height = found.size
    assert height / width == pytest.approx(2, rel=0.03)
    assert width * height <= MOST_PIXELS
    assert near(found.getpixel((width // 2, height - 10)), RED)
    assert near(found.getpixel((width // 2, 10)), BLUE)


@pytest.mark.parametrize("size", [(5000, 50), (50, 5000), (2800, 28)])
async def test_a_very_long_picture_is_shrunk_into_the_limit_too(
    size: tuple[int, int], release: Release, pool: CountingPool
):
    most_pixels = release.config.images.most_pixels
    images = Images(LimitSettings(), most_pixels, pool)
    found = (await decoded(images, base64_of(encoded(Image.new("RGB", size))))).pixels
    assert found.width * found.height <= most_pixels
    assert min(found.size) >= 28


async def test_a_jpeg_with_a_second_picture_inside_is_judged_by_its_first(images: Images):
    """Phones and stereo cameras write such files and call them .jpg."""
    first, second = Image.new("RGB", (120, 90), RED), Image.new("RGB", (120, 90), BLUE)
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert content[:3] == b"\xff\xd8\xff"
    found = (await decoded(images, base64_of(content))).pixels
    assert found.size == (120, 90)
    assert near(found.getpixel((60, 45)), RED)


async def test_unreadable_exif_does_not_spoil_a_good_picture(images: Images):
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08"):
        content = encoded(Image.new("RGB", (64, 64), RED), "JPEG", exif=exif)
        assert near((await decoded(images, base64_of(content))).pixels.getpixel((5, 5)), RED)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="9"/></svg>'
PPM = b"P6 64 64 255\n" + bytes(64 * 64 * 3)

PLAIN_PNG = encoded(Image.new("RGB", (64, 64)))
TEXT_BOMB = b"Comment\0\0" + zlib.compress(bytes(20 * 2**20))

REJECTED = {
    "truncated jpeg": (JPEG[: len(JPEG) // 2], REASONS[0]),
    "jpeg of a header alone": (JPEG[:30], REASONS[0]),
    "truncated png": (encoded(Image.effect_noise((99, 99), 50))[:-3000], REASONS[0]),
    "png with a wrong checksum": (
        encoded(Image.new("RGB", (64, 64))).replace(b"IDAT", b"IDAU"),
        REASONS[0],
    ),
    "gif": (encoded(Image.new("P", (64, 64)), "GIF"), REASONS[0]),
    "bmp": (encoded(Image.new("RGB", (64, 64)), "BMP"), REASONS[0]),
    "tiff": (encoded(Image.new("RGB", (64, 64)), "TIFF"), REASONS[0]),
    "ppm": (PPM, REASONS[0]),
    "svg": (SVG, REASONS[0]),
    "text": (b"a picture of a cat", REASONS[0]),
    "nothing": (b"", REASONS[0]),
    "1 x 1": (encoded(Image.new("RGB", (1, 1))), REASONS[3]),
    "27 pixels high": (encoded(Image.new("RGB", (200, 27))), REASONS[3]),
    "101 times as wide as high": (encoded(Image.new("RGB", (2829, 28))), REASONS[4]),
    "30000 x 30000": (png_that_claims(30_000, 30_000), REASONS[5]),
    "30000 x 30000 with pixels": (png_that_claims(30_000, 30_000, bytes(10**6)), REASONS[5]),
    "width times height beyond 32 bits": (png_that_claims(2**31 - 1, 2**31 - 1), REASONS[5]),
    "a text of 20 MB in a few kB": (
        PLAIN_PNG[:33] + png_chunk(b"zTXt", TEXT_BOMB) + PLAIN_PNG[33:],
        REASONS[0],
    ),
    "no width": (png_that_claims(0, 64), REASONS[0]),
    "animated webp": (
        encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], duration=100),
        REASONS[2],
    ),
    "animated png": (
        encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:], duration=100),
        REASONS[2],
    ),
}


@pytest.mark.parametrize("name", list(REJECTED))
async def test_what_is_no_picture_for_a_judge_is_rejected_in_our_own_words(
    name: str, images: Images
):
    content, reason = REJECTED[name]
    with pytest.raises(ImageRejected) as rejected:
        await decoded(images, base64_of(content))
    if name == "no width":
        assert rejected.value.detail in REASONS
    else:
        assert rejected.value.detail == reason
    assert rejected.value.code == "image_rejected"
    assert near((await decoded(images, base64_of(JPEG))).pixels.getpixel((10, 45)), RED)


@pytest.mark.parametrize("name", ["truncated jpeg", "gif", "svg", "text"])
async def test_a_name_does_not_make_a_picture(name: str, images: Images):
    content, _ = REJECTED[name]
    with pytest.raises(ImageRejected):
        await decoded(images, f"data:image/png;base64,{base64_of(content)}")


@pytest.mark.parametrize(
    "garbage",
    [
        "this is not base64!",
        "AAA",
        "data:image/png;base64,####",
        "data:text/plain;base64,QUFB",
        "data:image/png,QUFB",
        "https://example.org/cat.png",
        "/etc/passwd",
        "ünïcödé",
        base64_of(JPEG) + "=",
        base64_of(JPEG)[:40] + "\n" + base64_of(JPEG)[40:] + "?",
    ],
)
async def test_what_is_no_base64_is_rejected(garbage: str, images: Images):
    with pytest.raises(ImageRejected) as rejected:
        await decoded(images, garbage)
    assert rejected.value.detail in REASONS[:2]


async def test_a_header_that_claims_too_much_is_refused_before_decoding(images: Images):
    bomb = base64_of(png_that_claims(30_000, 30_000, bytes(20_000_000)))
    with pytest.raises(ImageRejected):  # the process is running after this
        await decoded(images, bomb)
    began = time.monotonic()
    with pytest.raises(ImageRejected, match="more than 25000000 pixels"):
        await decoded(images, bomb)
    assert time.monotonic() - began < 3


async def test_a_picture_of_too_many_bytes_is_refused_by_its_length(pool: CountingPool):
    images = Images(LimitSettings(image_bytes=2048), MOST_PIXELS, pool)
    with pytest.raises(ImageRejected, match="larger than 2048 bytes"):
        await decoded(images, "A" * 4096)
    fits = encoded(Image.new("RGB", (64, 64)))
    assert len(fits) < 2048
    assert (await decoded(images, base64_of(fits))).pixels.size == (64, 64)


async def test_the_identity_is_that_of_the_bytes_and_of_what_was_done_to_them(
    images: Images, pool: CountingPool
):
    one = (await decoded(images, base64_of(JPEG))).identity
    again = (await decoded(images, f"data:image/jpeg;base64,{base64_of(JPEG)}")).identity
    other = (await decoded(images, base64_of(encoded(Image.open(io.BytesIO(JPEG)))))).identity
    assert one == again
    assert one != other
    smaller = Images(LimitSettings(), MOST_PIXELS // 2, pool)
    assert (await decoded(smaller, base64_of(JPEG))).identity != one


async def test_a_picture_that_comes_again_is_decoded_once(images: Images, pool: CountingPool):
    together = await asyncio.gather(*(decoded(images, base64_of(JPEG)) for _ in range(5)))
    later = await decoded(images, f"data:image/jpeg;base64,{base64_of(JPEG)}")
    assert pool.asked == 1
    assert all(found.pixels is later.pixels for found in together)


async def test_a_picture_that_has_been_seen_can_be_named_by_its_digest(images: Images):
    digest = hashlib.sha256(JPEG).hexdigest()
    first = await decoded(images, base64_of(JPEG))
    assert await images.image(GivenImage(sha256=digest)) is first


async def test_a_picture_that_has_not_been_seen_or_was_refused_is_not_remembered(images: Images):
    with pytest.raises(ImageRejected):
        await decoded(images, base64_of(SVG))
    for content in (JPEG, SVG):
        digest = hashlib.sha256(content).hexdigest()
        with pytest.raises(ImageRejected, match="no image with this sha256 is remembered here"):
            await images.image(GivenImage(sha256=digest))


async def test_a_picture_that_was_refused_is_not_decoded_again(images: Images, pool: CountingPool):
    for content, reason in (REJECTED["truncated jpeg"], REJECTED["1 x 1"]):
        before = pool.asked
        for _ in range(3):
            with pytest.raises(ImageRejected, match=reason):
                await decoded(images, base64_of(content))
        assert pool.asked == before + 1


async def test_of_refused_pictures_too_a_tenant_learns_nothing_about_others(
    images: Images, pool: CountingPool
):
    for tenant in ("ours", "theirs"):
        with acting_for(tenant), pytest.raises(ImageRejected):
            await decoded(images, base64_of(SVG))
    assert pool.asked == 2


class LostOnce(CountingPool):
    """Whose children somebody ends, the first time."""

    async def run_for(self, cpu_s: float, function: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.asked:
            self.asked += 1
            raise TaskLost("ended")
        return await super().run_for(cpu_s, function, *args, **kwargs)


async def test_a_picture_whose_decoder_somebody_ended_is_decoded_when_it_comes_again():
    pool = LostOnce(1)
    images = Images(LimitSettings(), MOST_PIXELS, pool)
    with pytest.raises(ImageRejected):
        await decoded(images, base64_of(JPEG))
    assert (await decoded(images, base64_of(JPEG))).pixels.size == (120, 90)
    await pool.close()


def scans_of(progressive: bytes) -> tuple[bytes, bytes]:
    """What stands before a JPEG's last scan, and that scan."""
    at = progressive.rindex(b"\xff\xda")
    return progressive[:at], progressive[at:-2]


@pytest.mark.parametrize("filling", [b"", b"\xff\xff", b"\0garbage\xff\0"])
async def test_a_jpeg_of_very_many_scans_is_refused(filling: bytes, images: Images):
    flat = encoded(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    begun, scan = scans_of(flat)
    few = begun + (scan + filling) * 20 + b"\xff\xd9"
    assert (await decoded(images, base64_of(few))).pixels.size == (64, 64)
    many = begun + (scan + filling) * 101 + b"\xff\xd9"
    with pytest.raises(ImageRejected, match="more than 100 scans"):
        await decoded(images, base64_of(many))


async def test_what_looks_like_a_scan_inside_or_behind_a_jpeg_is_none(images: Images):
    """Previews, profiles, and the films that phones append to their pictures."""
    films = b"\xff\xda\0\2" * 1000
    inside = b"\xff\xe5" + (len(films) + 2).to_bytes(2) + films
    progressive = encoded(Image.open(io.BytesIO(JPEG)), "JPEG", progressive=True)
    for plain in (JPEG, progressive):
        content = plain[:2] + inside + plain[2:] + films
        assert (await decoded(images, base64_of(content))).pixels.size == (120, 90)


async def test_nobody_else_can_name_a_tenants_picture(images: Images):
    digest = hashlib.sha256(JPEG).hexdigest()
    with acting_for("ours"):
        await decoded(images, base64_of(JPEG))
        assert await is_remembered(images, digest)
    with acting_for("theirs"):
        assert not await is_remembered(images, digest)


async def test_the_pictures_that_were_not_used_for_longest_are_forgotten_first(
    pool: CountingPool,
):
    files = [encoded(Image.new("RGB", (100, 100), (n, 0, 0))) for n in range(4)]
    digests = [hashlib.sha256(file).hexdigest() for file in files]
    room_for_three = CacheSettings(image_bytes=3 * 30_000)
    images = Images(LimitSettings(), MOST_PIXELS, pool, cache=room_for_three)
    for file in files[:3]:
        await decoded(images, base64_of(file))
    await images.image(GivenImage(sha256=digests[0]))
    await decoded(images, base64_of(files[3]))
    remembered = [await is_remembered(images, digest) for digest in digests]
    assert remembered == [True, False, True, True]


async def test_a_memory_of_nothing_decodes_each_time(pool: CountingPool):
    images = Images(LimitSettings(), MOST_PIXELS, pool, cache=CacheSettings(image_bytes=0))
    pool.asked = 0
    for _ in range(2):
        assert (await decoded(images, base64_of(JPEG))).pixels.size == (120, 90)
    assert pool.asked == 2


async def is_remembered(images: Images, digest: str) -> bool:
    try:
        await images.image(GivenImage(sha256=digest))
    except ImageRejected:
        return False
    return True


@pytest.mark.parametrize("length", [0, 1, 2, 3, 49_151, 49_152, 49_153, 98_304, 200_001])
async def test_base64_of_any_length_is_read_as_a_whole(length: int, images: Images):
    content = random.Random(length).randbytes(length)
    with pytest.raises(ImageRejected, match="damaged"):  # read, and no picture
        await decoded(images, base64_of(content))
    padded = encoded(Image.new("RGB", (64, 64), RED)) + content
    identity = (await decoded(images, base64_of(padded))).identity
    assert identity.split("@")[0] == hashlib.sha256(padded).hexdigest()


async def test_padding_inside_a_long_text_is_no_base64(images: Images):
    part = base64_of(random.Random(1).randbytes(49_151))
    assert part.endswith("=")
    assert len(part) == 65_536
    with pytest.raises(ImageRejected, match="not valid base64"):
        await decoded(images, part + part)
