"""Writes the values' table in the chart's README.md anew, from values.yaml.

``python k8s/readme.py`` writes; ``--check`` only compares. The comment before a value tells what
follows from it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import yaml

CHART = Path(__file__).parent / "proxy-grm"

HEADING = "## Values\n"


def main() -> int:
    """Writes the file, or says that it is out of date."""
    text = readme()
    target = CHART / "README.md"
    if "--check" in sys.argv:
        return int(target.read_text() != text)
    target.write_text(text)
    return 0


def readme() -> str:
    """The text before the table as it is, and the table."""
    written, _, _ = (CHART / "README.md").read_text().partition(HEADING)
    source = (CHART / "values.yaml").read_text()
    node = yaml.compose(source, yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    lines = source.splitlines()
    table = ["| value | default | |", "|---|---|---|", *_rows(node, "", lines)]
    return f"{written}{HEADING}\n" + "\n".join(table) + "\n"


def _rows(node: yaml.MappingNode, prefix: str, lines: list[str]) -> list[str]:
    """One row a value; a table that is written in one line is one value."""
    rows: list[str] = []
    pairs = cast("list[tuple[yaml.ScalarNode, yaml.Node]]", node.value)
    for key, value in pairs:
        if key.value == "<<":
            continue
        name = f"{prefix}{key.value}"
        said = _comment(lines, key.start_mark.line)
        inside = isinstance(value, yaml.MappingNode) and bool(value.value) and not value.flow_style
        if inside:
            if said:
                rows.append(f"| **{name}** | | {said} |")
            rows += _rows(cast("yaml.MappingNode", value), f"{name}.", lines)
        else:
            rows.append(f"| `{name}` | {_shown(value)} | {said} |")
    return rows


def _comment(lines: list[str], at: int) -> str:
    """The comment right above a line."""
    said: list[str] = []
    while at > 0 and lines[at - 1].lstrip().startswith("#"):
        at -= 1
        said.insert(0, lines[at].lstrip().removeprefix("#").strip())
    return " ".join(said).replace("|", "\\|")


def _shown(node: yaml.Node) -> str:
    text = json.dumps(_plain(node))
    return "" if text in ('""', "{}", "[]", "null") else f"`{text}`"


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


if __name__ == "__main__":
    sys.exit(main())
