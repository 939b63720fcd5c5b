from __future__ import annotations

import asyncio

import pytest

from service.tenancy import DEFAULT_TENANT, acting_for, current_tenant

pytestmark = pytest.mark.anyio


async def test_a_tenant_goes_with_the_work_that_was_begun_for_it():
    async def work() -> str:
        await asyncio.sleep(0)
        return current_tenant()

    with acting_for("ours"):
        ours = asyncio.create_task(work())
        with acting_for("theirs"):
            theirs = asyncio.create_task(work())
        assert current_tenant() == "ours"
    assert current_tenant() == DEFAULT_TENANT
    assert await asyncio.gather(ours, theirs, work()) == ["ours", "theirs", DEFAULT_TENANT]
