"""Run by Python at start-up in child processes; see `models.torchvision_guard`."""

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

_here = Path(__file__).resolve().parent


def _run(path: str) -> ModuleType | None:
    spec = importlib.util.spec_from_file_location("_proxy_grm_start_up", path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return None


_guard = _run(str(_here.parent / "__init__.py"))
if _guard is not None:
    _guard.install()

# There is one sitecustomize a process: the one that this file hides is run as well.
_others = [path for path in sys.path if Path(path or ".").resolve() != _here]
_hidden = PathFinder.find_spec("sitecustomize", _others)
if _hidden is not None and _hidden.origin is not None:
    _run(_hidden.origin)
