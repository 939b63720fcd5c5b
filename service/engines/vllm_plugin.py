"""Loaded by vLLM in each of its processes (entry point ``vllm.general_plugins``)."""

from __future__ import annotations

import multiprocessing
import os

from service.child_process import end_with_parent

OWNED = "_PROXY_GRM_OWNS_VLLM"
"""Set by a gateway for its engine's processes; other vLLM programs are left alone."""


def register() -> None:
    """Ties an engine core to its gateway: one killed with -9 must not leave it on the GPU."""
    if os.environ.get(OWNED) and multiprocessing.parent_process() is not None:
        end_with_parent()
