"""Sends a ready-made comparison to a running service and shows the judgement."""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from proxy_grm_client import Client, Judgement, ProxyGrmError
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).parent
_COLUMNS = 36  # of the picture, in characters


def main() -> int:
    """``python examples/demo.py``."""
    parser = argparse.ArgumentParser(
        description="Judge an example and show rubric, evaluation, verdict and probability.",
        epilog="example: python examples/demo.py --request examples/cat.json --both-orders",
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--request", type=Path, default=HERE / "scene.json", help="a /score body")
    parser.add_argument("--both-orders", action="store_true", help="judge the swapped order too")
    options = parser.parse_args()
    body = json.loads(options.request.read_text(encoding="utf-8"))
    console = Console()
    try:
        # The client would wait for a service that is being restarted; a person would rather know.
        httpx.get(f"{options.url}/livez", timeout=5)
        with Client(options.url) as client, console.status("judging…"):
            judgement = client.score(
                body["question"],
                body["responses"],
                [base64.b64decode(image["data"]) for image in body["images"]],
                order="both" if options.both_orders else "given",
            )
    except (ProxyGrmError, httpx.HTTPError, httpx.InvalidURL) as error:
        print(
            f"{error}\nIs the service running at {options.url}? Start it with: make serve",
            file=sys.stderr,
        )
        return 1
    show(console, body, judgement)
    return 0


def show(console: Console, body: dict[str, Any], judgement: Judgement) -> None:
    """Prints a judgement so that a person enjoys reading it."""
    for image in body["images"] if console.color_system else ():
        console.print(_picture(base64.b64decode(image["data"])))
    console.print(Text(body["question"], style="bold"))
    for place, response in enumerate(body["responses"], start=1):
        better = judgement.preferred == place
        mark, style = ("✔", "bold green") if better else (" ", "dim")
        console.print(Text(f" {mark} {place}  {response}", style=style))
    console.print()
    if judgement.rubric is not None:
        console.print(Panel(_rubric(judgement), title="rubric", title_align="left"))
    if judgement.evaluation:
        console.print(Panel(Text(judgement.evaluation), title="evaluation", title_align="left"))
    console.print(_verdict(judgement))


def _rubric(judgement: Judgement) -> Group | Text:
    rubric = judgement.rubric
    assert rubric is not None
    if not rubric.criteria:
        return Text(rubric.text)
    table = Table.grid(padding=(0, 2))
    for criterion in rubric.criteria:
        weight = ProgressBar(total=1, completed=criterion.weight, width=12)
        name = Text(criterion.name, style="bold")
        table.add_row(weight, f"{criterion.weight:.0%}", name, Text(criterion.description))
    why = Text(f"\n{rubric.justification}", style="italic") if rubric.justification else Text()
    return Group(table, why)


def _verdict(judgement: Judgement) -> Panel:
    spent = f"{judgement.usage.completion_tokens} tokens, {judgement.timing.total_s:.2f} s"
    source = "from the cache" if judgement.cached else spent
    release = f"{judgement.release.name} {judgement.release.fingerprint[:8]} · {source}"
    if judgement.probability is None:
        return Panel(Text(f"no verdict: {judgement.reason}", style="yellow"), subtitle=release)
    chance = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1, completed=judgement.probability, width=40)
    chance.add_row("P(response 1 is better)", bar, f"{judgement.probability:.1%}")
    lines: list[Text | Table] = [
        Text(f"Response {judgement.preferred} is better.", style="bold"),
        chance,
    ]
    if judgement.order_consistent is not None:
        agree = "agree" if judgement.order_consistent else "disagree"
        lines.append(Text(f"The two reading orders {agree}.", style="dim"))
    if judgement.release.purpose == "demo":
        lines.append(Text("A demo release: it has only ever seen drawn scenes.", style="dim"))
    return Panel(Group(*lines), title="verdict", title_align="left", subtitle=release)


def _picture(content: bytes) -> Text:
    """The picture in half-block characters, two pixels each."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    rows = max(2, round(_COLUMNS * image.height / image.width / 2) * 2)
    small = image.resize((_COLUMNS, rows), Image.Resampling.LANCZOS)
    text = Text()
    for y in range(0, rows, 2):
        for x in range(_COLUMNS):
            upper, lower = (small.getpixel((x, y + below)) for below in (0, 1))
            text.append(
                "▀", style=f"rgb{upper} on rgb{lower}".replace(" ", "").replace("on", " on ")
            )
        text.append("\n")
    return text


if __name__ == "__main__":
    sys.exit(main())
