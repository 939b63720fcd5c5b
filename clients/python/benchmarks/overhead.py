"""What the client costs: its import beside `import httpx, pydantic`, a call beside raw httpx.

Side by side in one run, on a service that listens on this machine and answers at once; run from
the repository root: ``.venv/bin/python clients/python/benchmarks/overhead.py``

Costs are seconds of CPU, which a busy machine changes little; with `CONCURRENCY` calls in flight
in one process, each waits for the CPU of all, so a call's latency rises by that many times the
difference at most.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from proxy_grm_client import AsyncClient

CONCURRENCY, CALLS, ROUNDS, IMPORTS = 64, 640, 3, 7
ASKED = {"question": "How many?", "responses": ["One.", "Two."], "images": []}
ANSWER = {
    "id": "score_1",
    "status": "ok",
    "reason": None,
    "preferred": 1,
    "probability": 0.83,
    "order_consistent": None,
    "stopped": "complete",
    "rubric": {
        "id": "rub_1",
        "text": "1. Truth (100%)",
        "criteria": [{"name": "Truth", "description": "", "weight": 1.0}],
        "justification": None,
    },
    "evaluation": "The first is true. " * 20,
    "verdicts": [{"order": "given", "preferred": 1, "probability": 0.83, "text": "…" * 200}],
    "evaluators": [],
    "agreement": None,
    "release": {"name": "r", "fingerprint": "f", "purpose": "demo"},
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 0, "calls": 1},
    "timing": {"queue_s": 0.0, "image_s": 0.0, "engine_s": 0.1, "total_s": 0.1},
    "cached": False,
}
IMPORTED = (
    "import httpx, pydantic",
    "import httpx; from pydantic import BaseModel",
    "import proxy_grm_client",
    "from proxy_grm_client import Client",
    "from proxy_grm_client import Client, Judgement",
)


def main() -> None:
    """Prints both."""
    found = import_seconds()
    for code, seconds in found.items():
        ratio = seconds / found[IMPORTED[0]]
        sys.stdout.write(f"{seconds * 1000:7.1f} ms CPU  {ratio:4.2f} x  {code}\n")
    with_server(lambda url: asyncio.run(compare_calls(url)))


def import_seconds() -> dict[str, float]:
    """CPU of the best of some starts of Python, each with one line."""
    found: dict[str, float] = dict.fromkeys(IMPORTED, float("inf"))
    for _ in range(IMPORTS):
        for code in IMPORTED:
            before = _children_s()
            subprocess.run([sys.executable, "-c", code], check=True)
            found[code] = min(found[code], _children_s() - before)
    return found


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def compare_calls(url: str) -> None:
    """The same calls with raw httpx and with the client, in turns."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=url, limits=limits) as raw, AsyncClient(url) as client:

        async def by_httpx() -> None:
            response = await raw.post("/score", json=ASKED, timeout=60)
            response.raise_for_status()
            json.loads(response.content)

        async def by_client() -> None:
            await client.score("How many?", ["One.", "Two."])

        await spent(by_httpx)  # connections
        await spent(by_client)  # and validators
        found = [(await spent(by_httpx), await spent(by_client)) for _ in range(ROUNDS)]
    for name, unit in (("CPU", 0), ("wall", 1)):
        raw_s, client_s = (
            statistics.median(one[unit] for one in column) for column in zip(*found, strict=True)
        )
        sys.stdout.write(
            f"{raw_s * 1000:7.3f} ms {name} a call, raw httpx, {CONCURRENCY} at a time\n"
            f"{client_s * 1000:7.3f} ms {name} a call, the client "
            f"({(client_s - raw_s) * 1000:+.3f} ms)\n"
        )


async def spent(call: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """CPU and wall seconds a call: of all of them, `CONCURRENCY` at a time, over their number."""
    left = iter(range(CALLS))

    async def worker() -> None:
        for _ in left:
            await call()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return (time.process_time() - cpu) / CALLS, (time.perf_counter() - wall) / CALLS


def with_server(work: Callable[[str], None]) -> None:
    """Does the work while a server in another process answers."""
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            work(server.stdout.readline().strip())
        finally:
            server.terminate()


def serve() -> None:
    """Answers every request at once with one judgement."""
    body = json.dumps(ANSWER).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 2 * CONCURRENCY  # or connections made at once wait for a second try

    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
