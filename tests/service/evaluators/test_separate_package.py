"""An evaluator in a package of its own, written as `docs/evaluators.md` says and nothing more."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from service.evaluators import EvaluatorInvalid
from service.evaluators.kinds import GROUP, find

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "evaluators.md"
FILE = re.compile(r"^`(?P<path>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the package of the page."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    written = {match["path"]: match["text"] for match in FILE.finditer(PAGE.read_text())}
    assert set(written) == {"pyproject.toml", "shortest_evaluator/__init__.py", "README.md"}
    for path, text in written.items():
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_text(text)
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(target)]
    subprocess.run([*command, str(source)], check=True)
    return target


def test_it_is_no_kind_while_it_is_not_installed():
    with pytest.raises(EvaluatorInvalid, match="no evaluator is of kind 'shortest'"):
        find("shortest")


async def test_its_name_is_a_kind_that_can_be_asked(
    installed: Path, monkeypatch: pytest.MonkeyPatch, start_gateway
):
    monkeypatch.syspath_prepend(installed)
    assert "shortest" in {point.name for point in entry_points(group=GROUP)}
    gateway = await start_gateway(
        evaluators={"brevity": {"kind": "shortest", "options": {"sure_at": 20}}}
    )
    asked = {
        "responses": ["Yes, there surely is.", "Yes."],
        "evaluators": ["brevity"],
        "rubric": {"text": "1. Length (100%): the shorter the better."},
    }
    [said] = (await gateway.score(**asked)).json()["evaluators"]
    assert (said["name"], said["status"], said["preferred"]) == ("brevity", "ok", 2)
    assert said["probability"] == pytest.approx(0.5 - 17 / 40)
    asked["rubric"] = {"text": "1. Truth (100%): it is so."}
    [said] = (await gateway.score(**asked)).json()["evaluators"]
    assert (said["status"], said["reason"]) == ("abstain", "unreadable")
    listed = (await gateway.client.get("/evaluators")).json()["evaluators"]
    assert ("brevity", "shortest") in {(one["name"], one["kind"]) for one in listed}


async def test_an_option_that_it_does_not_know_is_refused(
    installed: Path, monkeypatch: pytest.MonkeyPatch, start_gateway
):
    monkeypatch.syspath_prepend(installed)
    with pytest.raises(EvaluatorInvalid, match="sure_as: Extra inputs are not permitted"):
        await start_gateway(
            evaluators={"brevity": {"kind": "shortest", "options": {"sure_as": 20}}}
        )
