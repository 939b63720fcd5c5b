"""Loaded by vLLM in each of its processes (entry point ``vllm.general_plugins``)."""

from __future__ import annotations

import os

from service.child_process import end_with_spawner

OWNED = "_PROXY_GRM_OWNS_VLLM"
"""Set by a gateway for its engine's processes; other vLLM programs are left alone."""


def register() -> None:
    """Ties an engine core to its gateway: one killed with -9 must not leave it on the GPU."""
    if os.environ.get(OWNED):
        end_with_spawner()
