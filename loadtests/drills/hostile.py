"""Hostile inputs: none is answered with a 5xx, hangs, or gets much more than it sent.

Some are made from the service's own description of its requests (schemathesis: such as fit it and
such as do not), the others are a list of what has broken services like this one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.errors import SerializationNotPossible
from schemathesis.core.result import Ok

from loadtests.bodies import drawn
from loadtests.drills.rows import DrillFailed, Row, Scale
from loadtests.drills.site import Site
from models.benchmarks.attacks import ATTACKS

_LONGEST_S = 60.0
_HASTE_S = 1.0
_TIMES, _BESIDES = 4, 16 * 1024
_GOOD: dict[str, Any] = {"question": "How many?", "responses": ["There is one.", "There are two."]}
_PLAIN = ("/livez", "/readyz", "/evaluators", "/metrics", "/releases")  # take no input


@dataclass(frozen=True, slots=True)
class _Sent:
    """A request, and what came of it.

    Attributes:
        status: 0 where nothing came.
        sent: bytes of it, headers included.
        got: bytes of the answer's body.
        hasty: it left the service no time, which may then say just that.
    """

    name: str
    status: int
    sent: int
    got: int
    hasty: bool = False

    @property
    def fault(self) -> str | None:
        """What is wrong with the answer, in words."""
        if self.status == 0:
            return f"{self.name}: no answer"
        if self.status >= 500 and not (self.hasty and self.status == 504):
            return f"{self.name}: {self.status}"
        if self.got > _TIMES * self.sent + _BESIDES:
            return f"{self.name}: {self.got} bytes for {self.sent}"
        return None


def run(site: Site, scale: Scale) -> Row:
    """Sends them all, one after the other, and sees whether the gateway still judges."""
    gateway = site.gateway()
    sent = [*_listed(gateway.url), *_generated(gateway.url, scale.count(40, 1))]
    answer = httpx.post(f"{gateway.url}/score", json=_GOOD, timeout=_LONGEST_S)
    if not answer.is_success or answer.json()["status"] != "ok":
        raise DrillFailed(f"after them it judges no more: {answer.text[:500]}")
    faults = [fault for one in sent if (fault := one.fault) is not None]
    kinds = Counter(one.status // 100 for one in sent)
    return Row(
        f"{len(sent)} hostile inputs, one after the other",
        len(sent),
        ok=kinds[2],
        refused=kinds[4] + sum(one.fault is None for one in sent if one.status >= 500),
        wrong=len(faults),
        figures={"inputs": len(sent), "deaths": gateway.metric("proxy_grm_engine_deaths_total")},
        notes=tuple(faults[:10]),
    )


def _generated(url: str, examples: int) -> Iterator[_Sent]:
    """So many that fit the service's description and so many that do not, for each operation."""
    schema = schemathesis.openapi.from_dict(httpx.get(f"{url}/openapi.json", timeout=60).json())
    for found in schema.get_all_operations():
        if not isinstance(found, Ok):
            raise DrillFailed("the description of the requests cannot be read")
        operation = found.ok()
        if operation.path in _PLAIN:
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for case in _cases(operation.as_strategy(mode), examples):
                yield _asked(url, f"{operation.label} {mode.value}", case)


def _cases(strategy: Any, examples: int) -> list[Any]:
    """The same ones each time."""
    made: list[Any] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
    )
    @given(case=strategy)
    def collect(case: Any) -> None:
        made.append(case)

    # Nothing can be wrong with some of them, and some take no JSON: the list has those.
    with contextlib.suppress(Unsatisfiable, SerializationNotPossible):
        collect()
    return made


def _asked(url: str, name: str, case: Any) -> _Sent:
    try:
        answer = case.call(base_url=url, timeout=_LONGEST_S)
    except Exception as error:  # whatever way it has to say that nothing came
        return _Sent(f"{name}: {type(error).__name__}", 0, 0, 0)
    asked = answer.request
    size = len(asked.url) + len(asked.body or b"")
    size += sum(len(key) + len(value) for key, value in asked.headers.items())
    return _Sent(name, answer.status_code, size, len(answer.content), _is_hasty(case.body))


def _is_hasty(body: Any) -> bool:
    timeout_s = body.get("timeout_s") if isinstance(body, dict) else None
    return isinstance(timeout_s, int | float) and timeout_s < _HASTE_S


def _listed(url: str) -> Iterator[_Sent]:
    with httpx.Client(base_url=url, timeout=_LONGEST_S) as client:
        for name, path, body, headers in _requests():
            try:
                answer = client.post(path, content=body, headers=headers)
            except httpx.HTTPError as error:
                yield _Sent(f"{name}: {type(error).__name__}", 0, 0, 0)
                continue
            size = len(body) + sum(len(k) + len(v) for k, v in answer.request.headers.raw)
            yield _Sent(name, answer.status_code, size, len(answer.content))


def _requests() -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Name, path, body and headers of each."""
    plain = {"content-type": "application/json"}
    for name, body in {**_texts(), **_pictures()}.items():
        for path in ("/score", "/rubric", "/verify", "/rank"):
            rubric = {"rubric": {"text": "1. Right (100%)."}} if path == "/verify" else {}
            yield f"{name} at {path}", path, json.dumps({**body, **rubric}).encode(), plain
    for name, text in _not_json().items():
        for path in ("/score", "/rank", "/score/batch", "/jobs"):
            lines = "application/x-ndjson" if path in ("/score/batch", "/jobs") else plain
            kind = {"content-type": lines} if isinstance(lines, str) else lines
            yield f"{name} at {path}", path, text, kind
    good = json.dumps(_GOOD).encode()
    for name, headers in {
        "compressed": {"content-encoding": "gzip"},
        "another type": {"content-type": "multipart/form-data; boundary=x"},
        "long header": {"x-long": "a" * 60_000},
        "many headers": {f"x-{number}": "a" for number in range(500)},
        "long id": {"x-request-id": "a" * 10_000},
        "idempotency key": {"idempotency-key": "a" * 300},
        "another tenant": {"x-proxy-grm-tenant": "../../other"},
        "not a key": {"authorization": "Bearer " + "\u007f" * 100},
    }.items():
        yield name, "/score", good, plain | headers


def _texts() -> dict[str, dict[str, Any]]:
    """What may stand where words are expected."""
    found = {
        f"attack {name}": {**_GOOD, "responses": [attack("There is one.", 1), "There are two."]}
        for name, attack in ATTACKS.items()
    }
    hostile = {
        "nul": "a\0b",
        "lone surrogate": "\ud800",
        "right to left": "\u202e" * 1000,
        "combining marks": "a" + "\u0301" * 50_000,
        "placeholders": "<|image_pad|>" * 2000,
        "tags": "<rubric><eval><answer>" * 2000,
        "long": "a " * 500_000,
        "too long": "a" * 1_000_001,
        "format": "{0.__class__} %s %n {{7*7}} ${jndi:ldap://127.0.0.1/a}",
        "blank": " \n\t",
    }
    found |= {f"question {name}": {**_GOOD, "question": text} for name, text in hostile.items()}
    for field, values in {
        "votes": [0, 17, 10**30, -1, 1.5, "1", None],
        "temperature": [-1, 1e308, "hot"],
        "seed": [-(10**40), 2**64, 0.1],
        "timeout_s": [0, -1, 1e300, "soon"],
        "id": ["", "a" * 10_000, "\r\nset-cookie: a=b"],
        "run_id": ["../../etc/passwd", "a" * 10_000],
        "responses": [[], ["one"], ["a"] * 1000, [""] * 2, "ab", {"0": "a"}],
        "images": [[{}], [{"data": "a", "url": "b"}], [None] * 5000, "a"],
        "evaluators": [["nobody"], ["self"] * 1000],
        "rubric": [{"id": "rub_" + "a" * 5000}, {"text": ""}, {"id": "a", "text": "b"}],
        "unknown": ["field"],
    }.items():
        for number, value in enumerate(values):
            found[f"{field} {number}"] = {**_GOOD, field: value}
    found["many unknown fields"] = _GOOD | {f"field {number}": 1 for number in range(20_000)}
    return found


def _pictures() -> dict[str, dict[str, Any]]:
    """Files that are no picture, or one that nobody should decode."""
    (good,) = drawn(1)
    file = base64.b64decode(good["images"][0]["data"])
    dice = random.Random(1)
    files = {
        "empty": b"",
        "cut off": file[: len(file) // 2],
        "huge by its head": _png(60_000, 60_000),
        "wide by its head": _png(2**31 - 1, 1),
        "one pixel": _png(1, 1),
        "no pixels": _png(0, 0),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "gif": b"GIF89a" + bytes(100),
        "zeros": bytes(100_000),
        **{f"damaged {n}": _damaged(file, dice) for n in range(20)},
    }
    found = {
        f"picture {name}": {**_GOOD, "images": [{"data": base64.b64encode(content).decode()}]}
        for name, content in files.items()
    }
    for number, image in enumerate(
        (
            {"data": "not base64!"},
            {"data": "data:text/html;base64,AAAA"},
            {"url": "file:///etc/passwd"},
            {"url": "http://169.254.169.254/latest/meta-data"},
            {"url": "http://127.0.0.1:1/"},
            {"sha256": "0" * 64},
            {"sha256": "../" * 20},
        )
    ):
        found[f"image {number}"] = {**_GOOD, "images": [image]}
    return found


def _not_json() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "no text": b"\xff\xfe\x00\x01" * 100,
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "long number": b'{"votes": ' + b"9" * 100_000 + b"}",
        "not a number": b'{"question": NaN, "responses": [Infinity]}',
        "same key again": b"{" + b'"question": "a", ' * 20_000 + b'"responses": ["a", "b"]}',
        "half a text": b'{"question": "abc',
        "many small": b"[" + b"{}," * 200_000 + b"{}]",
        "lines": b"\n" * 100_000,
    }


def _png(width: int, height: int) -> bytes:
    """A head that claims a size, and next to nothing after it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def _damaged(file: bytes, dice: random.Random) -> bytes:
    """The file with some of its bytes changed."""
    content = bytearray(file)
    for _ in range(10):
        content[dice.randrange(len(content))] = dice.randrange(256)
    return bytes(content)
