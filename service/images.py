"""Pictures: from what a client sent, fetched or remembered, to what a judge can look at.

A picture is known by the SHA-256 of its file. The decoded pixels of those seen last are kept in
this process's memory, up to a number of bytes: a picture that comes again is decoded once, and can
be named by its digest. Nothing of it is written anywhere else. Of those that were refused the
reasons are remembered: one that takes long to fail takes that once.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass

import structlog
from PIL import Image

from models.comparison import JudgeImage
from service.errors import ImageRejected
from service.image_decoding import CPU_S, DAMAGED, Bounds, decode
from service.image_fetching import ImageFetcher
from service.process_pool import ProcessPool, Refused, TaskFailed, TaskLost
from service.settings import CacheSettings, LimitSettings
from service.single_flight import SingleFlight
from service.tenancy import current_tenant

_log = structlog.get_logger(__name__)

_DATA_URI = re.compile(r"\Adata:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
_CHUNK = 64 * 1024  # base64 characters, whole groups of 4; more than this is read in a thread
_MOST_REFUSED = 4096
_NOT_BASE64 = "the image is not valid base64"


@dataclass(frozen=True, slots=True)
class GivenImage:
    """A picture as it came with a request: one of the three.

    Attributes:
        data: base64 or a data URI.
        url: where it is fetched.
        sha256: of a file that has been seen, in hexadecimal.
    """

    data: str | None = None
    url: str | None = None
    sha256: str | None = None


class Images:
    """Turns what a client sent into what a judge can look at.

    Args:
        limits: sizes over which a picture is refused.
        most_pixels: the area that a judge looks at; larger pictures are made to fit.
        pool: where they are decoded.
        fetcher: absent: none is fetched.
        cache: how much is remembered.

    Attributes:
        pool: as given.
    """

    def __init__(
        self,
        limits: LimitSettings,
        most_pixels: int,
        pool: ProcessPool,
        fetcher: ImageFetcher | None = None,
        cache: CacheSettings | None = None,
    ) -> None:
        self._most_bytes = limits.image_bytes
        self._bounds = Bounds(limits.image_pixels, most_pixels)
        self.pool = pool
        self._fetcher = fetcher or ImageFetcher((), limits)
        self._seen = _Seen((cache or CacheSettings()).image_bytes)
        self._refused: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._flights = SingleFlight()

    async def image(self, given: GivenImage) -> JudgeImage:
        """The picture as RGB inside the pixel limit.

        Nobody but the tenant whose it is can name it by its digest.

        Raises:
            ImageRejected: it is no JPEG, PNG or WebP, is damaged, outside the bounds, cannot be
                fetched, or is not remembered.
        """
        tenant = current_tenant()
        if given.sha256 is not None:
            return self._remembered(tenant, given.sha256)
        if given.url is not None:
            url = given.url
            content, digest = await self._flights.run((tenant, url), lambda: self._fetched(url))
        else:
            content, digest = await self._sent(given.data or "")
        seen = self._seen.get((tenant, digest))
        if seen is not None:
            return seen
        if (reason := self._refused.get((tenant, digest))) is not None:
            raise ImageRejected(reason)
        return await self._flights.run(
            (tenant, digest), lambda: self._decoded(tenant, digest, content)
        )

    def _remembered(self, tenant: str, digest: str) -> JudgeImage:
        seen = self._seen.get((tenant, digest))
        if seen is None:
            raise ImageRejected(
                "no image with this sha256 is remembered here; send the image itself"
            )
        return seen

    async def _fetched(self, url: str) -> tuple[bytes, str]:
        content = await self._fetcher.fetch(url)
        return content, await asyncio.to_thread(_digest, content)

    async def _sent(self, encoded: str) -> tuple[bytes, str]:
        header = _DATA_URI.match(encoded)
        start = header.end() if header else 0
        if len(encoded) - start > self._most_bytes * 4 // 3 + 4:
            raise ImageRejected(f"the image is larger than {self._most_bytes} bytes")
        if len(encoded) <= _CHUNK:
            return _content(encoded, start)
        return await asyncio.to_thread(_content, encoded, start)

    async def _decoded(self, tenant: str, digest: str, content: bytes) -> JudgeImage:
        try:
            size, rgb = await self.pool.run_for(CPU_S, decode, content, self._bounds)
        except Refused as refused:
            raise self._rejected(tenant, digest, str(refused)) from None
        except TaskFailed as failed:
            _log.info("image rejected", error=str(failed))
            if isinstance(failed, TaskLost):
                raise ImageRejected(DAMAGED) from None
            raise self._rejected(tenant, digest, DAMAGED) from None
        identity = f"{digest}@{self._bounds.shrink_to_pixels}"
        image = JudgeImage(Image.frombytes("RGB", size, rgb), identity)
        self._seen.keep((tenant, digest), image)
        return image

    def _rejected(self, tenant: str, digest: str, reason: str) -> ImageRejected:
        self._refused[tenant, digest] = reason
        if len(self._refused) > _MOST_REFUSED:
            self._refused.popitem(last=False)
        return ImageRejected(reason)


class _Seen:
    """The pictures looked at last, by whose they are and their digest."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._images: OrderedDict[tuple[str, str], JudgeImage] = OrderedDict()

    def get(self, key: tuple[str, str]) -> JudgeImage | None:
        image = self._images.get(key)
        if image is not None:
            self._images.move_to_end(key)
        return image

    def keep(self, key: tuple[str, str], image: JudgeImage) -> None:
        if key not in self._images:
            self._bytes += _size(image)
        self._images[key] = image
        while self._bytes > self._most_bytes:
            _, oldest = self._images.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(image: JudgeImage) -> int:
    return image.pixels.width * image.pixels.height * 3


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _content(encoded: str, start: int) -> tuple[bytes, str]:
    """The file and its digest.

    By the piece: the base64 decoder holds the interpreter's lock, and the event loop wants it.
    """
    content = bytearray()
    try:
        for at in range(start, len(encoded), _CHUNK):
            piece = encoded[at : at + _CHUNK]
            decoded = binascii.a2b_base64(piece, strict_mode=True)
            if at + _CHUNK < len(encoded) and len(decoded) * 4 != len(piece) * 3:
                raise ImageRejected(_NOT_BASE64)  # padding, and something after it
            content += decoded
    except ValueError:
        raise ImageRejected(_NOT_BASE64) from None
    whole = bytes(content)
    return whole, _digest(whole)
