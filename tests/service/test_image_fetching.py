"""Against a real server behind TLS on this machine, led to by a wire of the tests."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.errors import ImageRejected
from service.image_fetching import ImageFetcher
from service.settings import LimitSettings

pytestmark = pytest.mark.anyio

HOST, PUBLIC = "images.example", "93.184.216.34"
PNG = b"\x89PNG and so on"
LIMITS = LimitSettings(image_bytes=4096, image_fetch_s=20)
NOT_FETCHED = "the image could not be fetched"


@dataclass
class Server:
    """Answers by path; remembers what was asked and under which name TLS was begun."""

    port: int = 0
    certificate: Path | None = None
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    names: list[str | None] = field(default_factory=list[str | None])

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        host = next(
            line.split(": ", 1)[1]
            for line in head.split("\r\n")
            if line.lower().startswith("host:")
        )
        self.asked.append((host, path))
        try:
            await self._write(path, writer)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _write(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path.startswith("/to?"):
            writer.write(answered(302, f"location: {path[4:]}\r\n"))
        elif path == "/silent":
            await asyncio.sleep(3600)
        elif path in DRIPPING:
            size, pause_s = DRIPPING[path]
            writer.write(b"HTTP/1.1 200 OK\r\n" + TYPED.encode() + b"\r\n")
            while True:
                writer.write(bytes(size))
                await writer.drain()
                await asyncio.sleep(pause_s)
        else:
            writer.write(ANSWERS.get(path, b""))
        await writer.drain()


def answered(status: int, headers: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


TYPED = "content-type: image/png\r\n"
DRIPPING = {"/endless": (1024, 0.0), "/slow": (1, 0.01)}
ANSWERS = {
    "/cat.png": answered(200, TYPED, PNG),
    "/page": answered(200, "content-type: text/html\r\n", b"<html>"),
    "/untyped": answered(200, "", PNG),
    "/gzip": answered(200, TYPED + "content-encoding: gzip\r\n", PNG),
    "/missing": answered(404, TYPED, b"secret words of the server"),
    "/cut": answered(200, TYPED, PNG)[:-3],
    "/garbage": b"220 ftp.example ready\r\n",
}


class Wire(httpx.AsyncBaseTransport):
    """Leads a public address to the server on this machine, as routers would."""

    def __init__(self, server: Server) -> None:
        self._port = server.port
        context = ssl.create_default_context(cafile=server.certificate)
        self._real = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
        self.dialled: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.dialled.append(request.url.host)
        request.url = request.url.copy_with(host="127.0.0.1", port=self._port)
        return await self._real.handle_async_request(request)

    async def aclose(self) -> None:
        await self._real.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for the host's name alone, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return public, private


@pytest.fixture
async def server(certificate: tuple[Path, Path]) -> AsyncIterator[Server]:
    public, private = certificate
    server = Server(certificate=public)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    context.sni_callback = lambda _socket, name, _context: server.names.append(name)
    async with listening(server, context):
        yield server


@asynccontextmanager
async def listening(server: Server, context: ssl.SSLContext | None) -> AsyncIterator[None]:
    started = await asyncio.start_server(server.answer, "127.0.0.1", 0, ssl=context)
    server.port = started.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        started.close()


class Names:
    """A name server whose answers are given; says how often it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


Fetcher = Callable[..., tuple[ImageFetcher, Wire]]


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    """Makes fetchers that are closed with the test."""
    made: list[ImageFetcher] = []

    def make(
        server: Server,
        names: Names | None = None,
        hosts: Sequence[str] = (HOST,),
        limits: LimitSettings = LIMITS,
    ) -> tuple[ImageFetcher, Wire]:
        wire = Wire(server)
        names = names or Names([PUBLIC])
        made.append(ImageFetcher(hosts, limits, resolve=names, transport=wire))
        return made[-1], wire

    yield make
    for fetching in made:
        await fetching.close()


async def refusal(fetching: ImageFetcher, url: str) -> str:
    with pytest.raises(ImageRejected) as rejected:
        await fetching.fetch(url)
    return rejected.value.detail


async def test_the_checked_address_is_dialled_under_the_hosts_name(
    server: Server, fetcher: Fetcher
):
    names = Names([PUBLIC], ["127.0.0.1"])  # another answer, should anybody ask again
    fetching, wire = fetcher(server, names)
    assert await fetching.fetch(f"https://{HOST}/cat.png") == PNG
    assert wire.dialled == [PUBLIC]
    assert names.asked == [(HOST, 443)]
    assert server.names == [HOST]
    assert server.asked == [(HOST, "/cat.png")]


async def test_a_server_without_the_hosts_certificate_gives_nothing(
    server: Server, fetcher: Fetcher
):
    fetching, _ = fetcher(server, hosts=("other.example",))
    assert await refusal(fetching, "https://other.example/cat.png") == NOT_FETCHED
    assert server.asked == []


async def test_without_listed_hosts_nothing_is_fetched(server: Server, fetcher: Fetcher):
    names = Names([PUBLIC])
    fetching, wire = fetcher(server, names, hosts=())
    assert "fetches no images from URLs" in await refusal(fetching, f"https://{HOST}/cat.png")
    assert (wire.dialled, names.asked) == ([], [])


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/cat.png",
        f"https://{HOST}.evil.example/cat.png",
        f"https://evil.example/{HOST}",
        f"https://{HOST}./cat.png",
        f"https://{HOST}:8443/cat.png",
        f"http://{HOST}/cat.png",
        f"https://{HOST}@evil.example/cat.png",
        f"https://{HOST}:443@evil.example/cat.png",
        f"https://user:secret@{HOST}/cat.png",
        f"https://evil.example\\@{HOST}/cat.png",
        f"https://evil.example#@{HOST}/cat.png",
        f"ftp://{HOST}/cat.png",
        f"file://{HOST}/etc/passwd",
        "file:///etc/passwd",
        "https://127.0.0.1/cat.png",
        "https://[::1]/cat.png",
        "https://2130706433/",
        f"//{HOST}/cat.png",
        "cat.png",
        "",
        "https://",
        "https://\x00",
        f"https://{HOST}:99999/",
        f"https://{HOST}\n.evil.example/",
    ],
)
async def test_an_address_that_is_not_listed_is_not_even_looked_up(
    url: str, server: Server, fetcher: Fetcher
):
    names = Names([PUBLIC])
    fetching, wire = fetcher(server, names)
    await refusal(fetching, url)
    assert (wire.dialled, names.asked) == ([], [])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "::ffff:0:7f00:1",
        "::7f00:1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "192.0.0.8",
        "2001:db8::1",
    ],
)
@pytest.mark.parametrize("beside", [[], [PUBLIC]], ids=["alone", "beside a public one"])
async def test_a_name_with_any_private_address_is_not_dialled(
    address: str, beside: list[str], server: Server, fetcher: Fetcher
):
    fetching, wire = fetcher(server, Names([*beside, address]))
    assert await refusal(fetching, f"https://{HOST}/cat.png") == NOT_FETCHED
    assert wire.dialled == []


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700::1111", "::ffff:93.184.216.34"])
async def test_public_addresses_of_both_kinds_are_dialled(
    address: str, server: Server, fetcher: Fetcher
):
    fetching, wire = fetcher(server, Names([address]))
    assert await fetching.fetch(f"https://{HOST}/cat.png") == PNG
    [dialled] = wire.dialled
    assert ipaddress.ip_address(dialled) == ipaddress.ip_address(address)


async def test_a_name_without_addresses_gives_nothing(server: Server, fetcher: Fetcher):
    fetching, _ = fetcher(server, Names([]))
    assert await refusal(fetching, f"https://{HOST}/cat.png") == NOT_FETCHED


async def test_the_systems_resolver_knows_this_machine_as_private():
    fetching = ImageFetcher(("https://localhost",), LIMITS)
    assert await refusal(fetching, "https://localhost/cat.png") == NOT_FETCHED
    await fetching.close()


async def test_a_redirect_on_listed_hosts_is_followed_and_checked_again(
    server: Server, fetcher: Fetcher
):
    names = Names([PUBLIC])
    fetching, wire = fetcher(server, names)
    assert await fetching.fetch(f"https://{HOST}/to?/cat.png") == PNG
    assert len(names.asked) == len(wire.dialled) == 2


@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.1/cat.png",
        "http://169.254.169.254/latest/meta-data",
        "https://elsewhere.example/cat.png",
        f"http://{HOST}/cat.png",
        "file:///etc/passwd",
        "//127.0.0.1/cat.png",
    ],
)
async def test_a_redirect_to_anything_else_is_refused(
    target: str, server: Server, fetcher: Fetcher
):
    fetching, wire = fetcher(server)
    await refusal(fetching, f"https://{HOST}/to?{target}")
    assert wire.dialled == [PUBLIC]


async def test_a_host_that_turns_private_at_its_redirect_is_not_dialled_again(
    server: Server, fetcher: Fetcher
):
    fetching, wire = fetcher(server, Names([PUBLIC], ["127.0.0.1"]))
    assert await refusal(fetching, f"https://{HOST}/to?/cat.png") == NOT_FETCHED
    assert wire.dialled == [PUBLIC]


async def test_a_redirect_in_circles_ends(server: Server, fetcher: Fetcher):
    fetching, wire = fetcher(server)
    path = "/to?" * 9 + "/cat.png"
    assert "more than 3 times" in await refusal(fetching, f"https://{HOST}{path}")
    assert len(wire.dialled) == 4


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/page", "what is at the image's URL is not a JPEG, PNG or WebP"),
        ("/untyped", "what is at the image's URL is not a JPEG, PNG or WebP"),
        ("/gzip", "what is at the image's URL is compressed; it is not read"),
        ("/missing", NOT_FETCHED),
        ("/cut", NOT_FETCHED),
        ("/garbage", NOT_FETCHED),
        ("/closed", NOT_FETCHED),
        ("/endless", "the image is larger than 4096 bytes"),
    ],
)
async def test_what_is_no_picture_is_not_read_to_its_end(
    path: str, said: str, server: Server, fetcher: Fetcher
):
    fetching, _ = fetcher(server)
    assert await refusal(fetching, f"https://{HOST}{path}") == said


@pytest.mark.parametrize("path", ["/slow", "/silent"])
async def test_a_server_that_dawdles_is_left(path: str, server: Server, fetcher: Fetcher):
    hurried = LimitSettings(image_bytes=2**20, image_fetch_s=0.3)
    fetching, _ = fetcher(server, limits=hurried)
    assert await refusal(fetching, f"https://{HOST}{path}") == (
        "the image did not arrive within 0.3 s"
    )


async def test_an_entry_may_name_plain_http_and_a_port(fetcher: Fetcher):
    server = Server()
    async with listening(server, None):
        fetching, _ = fetcher(server, hosts=(f"http://{HOST}:8080",))
        assert await fetching.fetch(f"http://{HOST}:8080/cat.png") == PNG
        assert server.asked == [(f"{HOST}:8080", "/cat.png")]
        for other in (f"http://{HOST}/cat.png", f"https://{HOST}:8080/cat.png"):
            await refusal(fetching, other)
        assert len(server.asked) == 1


async def test_a_fetch_that_waits_for_others_has_its_own_time_still():
    going = most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal going, most
        going += 1
        most = max(most, going)
        try:
            if request.url.path == "/silent":
                await asyncio.sleep(3600)
        finally:
            going -= 1
        typed = {"content-type": "image/png"}
        return httpx.Response(200, headers=typed, stream=httpx.ByteStream(PNG))

    limits = LimitSettings(image_fetch_s=1)
    wire = httpx.MockTransport(answer)
    fetching = ImageFetcher((HOST,), limits, resolve=Names([PUBLIC]), transport=wire)
    paths = ["silent"] * 64 + ["cat.png"] * 8
    fetches = [fetching.fetch(f"https://{HOST}/{path}") for path in paths]
    fetched = await asyncio.gather(*fetches, return_exceptions=True)
    assert [type(one) for one in fetched[:64]] == [ImageRejected] * 64
    assert fetched[64:] == [PNG] * 8
    assert most == 32
    await fetching.close()
