from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from service.api.dialects import load_dialect
from service.settings import DialectName, Settings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", get_args(DialectName))
def test_every_name_is_a_dialect(name: DialectName):
    assert load_dialect(name).path.startswith("/get_reward")


async def test_none_is_spoken_unless_it_is_named(start_gateway):
    gateway = await start_gateway()
    for path in ("/get_reward_mllm", "/get_reward"):
        answer = await gateway.client.post(path, json={"query": [], "prompts": []})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_where_two_share_a_path_only_the_named_one_answers(start_gateway):
    gateway = await start_gateway(dialects=("proxy_grm",))
    answer = await gateway.client.post("/get_reward_mllm", json={"query": [], "prompts": []})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "no dialect that is switched on" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"no json", b"[1]", b"null", b"[" * 100_000])
async def test_what_is_no_json_object_is_refused(body: bytes, speaking):
    for path in ("/get_reward_mllm", "/get_reward"):
        answer = await speaking.client.post(path, content=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_they_are_named_in_a_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROXY_GRM_DIALECTS", "proxy_grm, openrlhf,")
    assert Settings().dialects == ("openrlhf", "proxy_grm")
    monkeypatch.setenv("PROXY_GRM_DIALECTS", "klingon")
    with pytest.raises(ValidationError, match="dialects"):
        Settings()
