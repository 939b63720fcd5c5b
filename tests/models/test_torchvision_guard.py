from __future__ import annotations

import os.path
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from models import torchvision_guard

START_UP = str(Path(torchvision_guard.__file__).parent / "path")
ARMED = "import sys; print(sum(hasattr(f, 'guards_torchvision') for f in sys.meta_path))"


def guards() -> list[object]:
    return [f for f in sys.meta_path if getattr(f, "guards_torchvision", False)]


def python_path() -> str:
    return os.path.expandvars("$PYTHONPATH")


def child(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def _torchvision_not_looked_for(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if f not in guards()])
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)


@pytest.mark.usefixtures("_torchvision_not_looked_for")
def test_installing_twice_arms_one_guard_in_front():
    torchvision_guard.install()
    torchvision_guard.install()
    assert guards() == [sys.meta_path[0]]


@pytest.mark.usefixtures("_torchvision_not_looked_for")
def test_nothing_is_armed_once_torchvision_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    torchvision_guard.install()
    assert guards() == []


@pytest.mark.usefixtures("_torchvision_not_looked_for")
@pytest.mark.parametrize("name", ["json", "torch", "torchvision.ops", "torchvisions"])
def test_other_modules_are_left_to_others(name):
    torchvision_guard.install()
    assert sys.meta_path[0].find_spec(name, None) is None
    assert len(guards()) == 1


@pytest.mark.usefixtures("_torchvision_not_looked_for")
def test_where_torchvision_is_missing_it_stays_missing(tmp_path):
    torchvision_guard.install()
    assert sys.meta_path[0].find_spec("torchvision", [str(tmp_path)]) is None
    assert guards() == []


def test_torchvision_can_be_imported_beside_this_torch():
    torchvision_guard.install()
    import torch
    from torchvision.transforms.v2 import functional

    assert callable(torch.ops.torchvision.nms)
    assert functional.resize(torch.zeros(3, 4, 4), [2, 2], antialias=True).shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [START_UP]),
        (["/a", "/b"], [START_UP, "/a", "/b"]),
        (["/a", START_UP], ["/a", START_UP]),
    ],
)
def test_children_get_the_guard_once_and_keep_their_paths(monkeypatch, before, after):
    monkeypatch.setenv("PYTHONPATH", ":".join(before))
    torchvision_guard.install_for_children()
    torchvision_guard.install_for_children()
    assert python_path() == ":".join(after)


def test_a_child_process_is_armed(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    torchvision_guard.install_for_children()
    assert child(ARMED) == "1\n"


def test_a_child_that_installs_the_guard_itself_has_it_once(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(torchvision_guard.__file__).parents[2]))
    torchvision_guard.install_for_children()
    install = "from models import torchvision_guard; torchvision_guard.install(); "
    assert child(install + ARMED) == "1\n"


def test_the_start_up_file_that_ours_hides_is_run_as_well(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('theirs')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    torchvision_guard.install_for_children()
    assert child(ARMED) == "theirs\n1\n"


def test_a_function_of_the_hidden_start_up_file_is_not_called(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("def install():\n    print('called')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    torchvision_guard.install_for_children()
    assert child(ARMED) == "1\n"


def test_the_start_up_file_imports_nothing_heavy(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    torchvision_guard.install_for_children()
    assert child("import sys; print('torch' in sys.modules)") == "False\n"
