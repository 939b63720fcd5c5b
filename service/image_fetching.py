"""Fetching a picture from a URL without being made to fetch anything else.

Only hosts that the settings list are asked, over https unless an entry says otherwise. A host's
name is resolved once; if any of its addresses is not a public one nothing is dialled, else the
checked address itself is, under the host's name for TLS and HTTP (a second look-up could answer
differently: CVE-2026-24779). A redirect is followed at most three times and goes through the same
checks. One parser reads the URL for the checks and for the request (CVE-2025-6242).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import structlog

from service.errors import ImageRejected
from service.settings import LimitSettings

_log = structlog.get_logger(__name__)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host's name."""

_MOST_REDIRECTS = 3
_AT_ONCE = 32
_PORTS = {"https": 443, "http": 80}
_TYPES = (
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/webp",
    "application/octet-stream",
    "binary/octet-stream",
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Reserved, retired or for a network's own use, and taken for global by some version of Python.
_NOT_PUBLIC = [
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",
        "::/96",
        "::ffff:0:0:0/96",
        "64:ff9b:1::/48",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
]
_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_Origin = tuple[str, str, int]


class ImageFetcher:
    """Fetches files of the bytes, types and seconds that the limits allow.

    Args:
        hosts: ``host``, ``host:port``, or either after ``http://``; empty: nothing is fetched.
        limits: bytes and seconds.
        resolve: used instead of the system's resolver.
        transport: used instead of a real connection; it is given addresses, not names.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        limits: LimitSettings,
        *,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._origins = {_origin(_listed(host)) for host in hosts}
        self._most_bytes = limits.image_bytes
        self._timeout_s = limits.image_fetch_s
        # Outside a fetch's own time: a good URL is not to blame for those before it.
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._resolve = resolve or _SystemResolver()
        # No connection is kept: one to an address would serve another host behind it.
        self._transport = transport or httpx.AsyncHTTPTransport(
            verify=ssl.create_default_context(),
            trust_env=False,
            limits=httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Ends what is left of connections."""
        await self._transport.aclose()

    async def fetch(self, url: str) -> bytes:
        """The file at a URL. Waiting for others that are fetched takes none of its seconds.

        Raises:
            ImageRejected: it is not to be had from there, or not within the limits. No more is
                said than which limit: answers must not map somebody's network.
        """
        if not self._origins:
            raise ImageRejected("this server fetches no images from URLs; send the image itself")
        async with self._places:
            return await self._in_time(url)

    async def _in_time(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._followed(url)
        except TimeoutError:
            raise ImageRejected(f"the image did not arrive within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            _log.info("image not fetched", error=type(error).__name__)
            raise ImageRejected("the image could not be fetched") from None

    async def _followed(self, url: str) -> bytes:
        target = httpx.URL(url)
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._asked(target)
            try:
                if not response.has_redirect_location:
                    return await self._content(response)
                target = target.join(response.headers["location"])
            finally:
                await response.aclose()
        raise ImageRejected(f"the image's URL redirects more than {_MOST_REDIRECTS} times")

    async def _asked(self, url: httpx.URL) -> httpx.Response:
        """The beginning of an answer from the checked address of a listed host."""
        if url.userinfo or _origin(url) not in self._origins:
            raise ImageRejected("images are not fetched from this host; the server lists others")
        _, host, port = _origin(url)
        addresses = await self._resolve(host, port)
        if not addresses or not all(_is_public(address) for address in addresses):
            _log.warning("image host without public addresses alone", host=host)
            raise ImageRejected("the image could not be fetched")
        request = httpx.Request(
            "GET",
            url.copy_with(host=addresses[0], fragment=None),
            headers={
                "host": url.netloc.decode("ascii"),
                "accept": "image/jpeg, image/png, image/webp",
                "accept-encoding": "identity",
                "user-agent": "proxy-grm",
            },
            extensions={"sni_hostname": host},
        )
        response = await self._transport.handle_async_request(request)
        response.request = request
        return response

    async def _content(self, response: httpx.Response) -> bytes:
        if response.status_code != 200:
            raise ImageRejected("the image could not be fetched")
        if _media_type(response) not in _TYPES:
            raise ImageRejected("what is at the image's URL is not a JPEG, PNG or WebP")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ImageRejected("what is at the image's URL is compressed; it is not read")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > self._most_bytes:
                raise ImageRejected(f"the image is larger than {self._most_bytes} bytes")
        return bytes(content)


class _SystemResolver:
    """The system's, in threads of its own: a name server that is silent blocks nobody else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]


def _listed(host: str) -> httpx.URL:
    return httpx.URL(host if "://" in host else f"https://{host}")


def _origin(url: httpx.URL) -> _Origin:
    host = url.raw_host.decode("ascii").lower()
    return url.scheme, host, url.port or _PORTS.get(url.scheme, 0)


def _media_type(response: httpx.Response) -> str:
    return response.headers.get("content-type", "").split(";")[0].strip().lower()


def _is_public(text: str) -> bool:
    """Whether everybody on the internet means the same machine by it.

    An IPv6 address that stands for an IPv4 one is as public as that one.
    """
    address = ipaddress.ip_address(text)
    inner: _IpAddress | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return _is_public(str(inner))
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast
