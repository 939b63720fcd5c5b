"""Lets a CUDA-built torchvision be imported beside a CPU-only torch.

PyPI has no CPU build of torchvision, and the build it has stops at import with
``operator torchvision::nms does not exist``. Declaring the two missing operators
first is enough for everything a Qwen2.5-VL processor uses (resize, normalise).

`install` covers this process and `install_for_children` the ones it starts,
whose main module need not be ours (vLLM inspects models in a process of its
own). Both cost nothing until somebody imports torchvision and do nothing where
the operators exist. Delete this package when PyPI carries a CPU build of
torchvision.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[object] = []  # torch drops a declaration together with its Library object


class _Finder:
    """Declares the operators when torchvision is first looked for."""

    guards_torchvision = True  # a child has this module twice: from sitecustomize and imported

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None and importlib.util.find_spec("torch"):
            _declare_missing_operators(Path(spec.origin).parent)
        return spec


def install() -> None:
    """Arms the guard for this process. Calling it again changes nothing."""
    armed = any(getattr(finder, "guards_torchvision", False) for finder in sys.meta_path)
    if not armed and "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


def install_for_children() -> None:
    """Arms the guard in every Python process started from this one, through ``sitecustomize``."""
    folder = str(Path(__file__).parent / "path")
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if folder not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *paths])


def _declare_missing_operators(package: Path) -> None:
    import torch

    for extension in package.glob("_C*.so"):
        try:
            torch.ops.load_library(str(extension))
        except OSError:
            continue
        return  # it fits this torch and has brought its operators
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)
