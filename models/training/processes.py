"""Which of a run's processes this is, and who spreads it, before the trainer is there to tell."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether files and progress are this process's to write.

    torchrun and accelerate's launcher number processes over all nodes in ``RANK``; a run of one
    process has none.
    """
    return os.environ.get("RANK", "0") == "0"


def spread_by_accelerate() -> bool:
    """Whether accelerate's launcher has set up DeepSpeed or FSDP, which train in float32."""
    names = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP")
    return any(os.environ.get(name, "").lower() == "true" for name in names)
