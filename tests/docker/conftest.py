"""The Dockerfile and the compose file, read as data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows it."""

    name: str
    parent: str
    instructions: tuple[tuple[str, str], ...]

    def of(self, keyword: str) -> list[str]:
        return [rest for found, rest in self.instructions if found == keyword]


@pytest.fixture(scope="session")
def stages() -> dict[str, Stage]:
    text = (DOCKER / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: dict[str, Stage] = {}
    own: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            parent, _, name = rest.partition(" AS ")
            own = []
            found[name] = Stage(name, parent, ())
        elif found:
            own.append((keyword, rest.strip()))
            last = next(reversed(found))
            found[last] = Stage(last, found[last].parent, tuple(own))
    return found


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def inherited(stages: dict[str, Stage], name: str, keyword: str) -> list[str]:
    """What a stage and those it is made from say under a keyword, its own last."""
    stage = stages[name]
    before = inherited(stages, stage.parent, keyword) if stage.parent in stages else []
    return [*before, *stage.of(keyword)]


def command_of(stages: dict[str, Stage], target: str) -> list[str]:
    return json.loads(inherited(stages, target, "CMD")[-1])
