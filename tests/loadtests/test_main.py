from __future__ import annotations

import httpx
import pytest

from loadtests.__main__ import main


@pytest.mark.parametrize(("key", "sent"), [("k-1", "Bearer k-1"), (None, None)])
def test_a_key_of_the_environment_goes_with_every_request(
    key: str | None,
    sent: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    if key is None:
        monkeypatch.delenv("PROXY_GRM_API_KEY", raising=False)
    else:
        monkeypatch.setenv("PROXY_GRM_API_KEY", key)
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={})

    assert main(["--rate", "20", "--seconds", "0.5"], httpx.MockTransport(answer)) == 0
    assert seen == [sent] * 10
    assert "all objectives met" in capsys.readouterr().out
