"""What a program pays that only imports the client."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CODE = """
import sys
{imported}
found = {{name.partition(".")[0] for name, module in sys.modules.items() if module}}
print(*sorted(found & {{"httpx", "pydantic", "numpy", "PIL", "torch"}}))
"""


@pytest.mark.parametrize(
    ("imported", "brought"),
    [
        ("import proxy_grm_client", ""),
        ("from proxy_grm_client import ProxyGrmError", ""),
        ("from proxy_grm_client import AsyncClient, Client", "httpx"),
        ("from proxy_grm_client import Judgement", "httpx pydantic"),
        ("import proxy_grm_client.trainers.trl, proxy_grm_client.trainers.verl", "httpx pydantic"),
    ],
)
def test_no_more_is_imported_than_is_used(imported: str, brought: str):
    code = _CODE.format(imported=imported)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == brought
