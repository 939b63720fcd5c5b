"""Output formats: judges trained elsewhere, behind the same endpoints."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from models.errors import ReleaseInvalid
from models.formats.contract import OutputFormat

__all__ = ["SHIPPED", "OutputFormat", "load_format"]

SHIPPED = {
    "proxy_grm": "models.formats.proxy_grm:ProxyGrm",
    "r1_reward": "models.formats.thinking:R1Reward",
    "unified_reward_think": "models.formats.thinking:UnifiedRewardThink",
}


@cache
def load_format(name: str) -> OutputFormat:
    """The output format of a shipped name or of ``package.module:Class``.

    Raises:
        ReleaseInvalid: there is none, it cannot be imported, or it is no output format.
    """
    path = SHIPPED.get(name, name)
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise ReleaseInvalid(
            f"no output format is called {name!r}: there are {', '.join(sorted(SHIPPED))}, "
            "and your own by package.module:Class"
        )
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        raise ReleaseInvalid(f"the output format {name!r} cannot be loaded: {cause}") from cause
    if not (isinstance(found, type) and issubclass(found, OutputFormat)):
        raise ReleaseInvalid(f"{name} is no subclass of models.formats.OutputFormat")
    return found()
