"""The examples in docstrings, run against a service whose engine is scripted."""

from __future__ import annotations

import doctest
from importlib import import_module

import proxy_grm_client
import pytest
from PIL import Image
from proxy_grm_client import Client

MODULES = (
    "proxy_grm_client",
    "proxy_grm_client.jobs",
    "proxy_grm_client.client",
    "proxy_grm_client.async_client",
    "proxy_grm_client.trainers.trl",
    "proxy_grm_client.trainers.verl",
    "proxy_grm_client.trainers.openrlhf",
)


@pytest.mark.parametrize("name", MODULES)
def test_every_example_does_what_it_says(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("examples")
    Image.new("RGB", (64, 48), "teal").save(folder / "cat.jpg")
    monkeypatch.chdir(folder)
    where = "jobs_url" if name.endswith(".jobs") else "service_url"
    monkeypatch.setenv("PROXY_GRM_URL", request.getfixturevalue(where))
    with Client() as client:
        found = doctest.testmod(
            import_module(name),
            globs={"Client": Client, "client": client, "proxy_grm_client": proxy_grm_client},
            optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL,
        )
    assert found.attempted > 0
    assert found.failed == 0
