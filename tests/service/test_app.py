from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from models.errors import ReleaseInvalid
from models.release import load_release
from service.api.gateway import Gateway
from service.app import Engines, build_engines, create_app
from service.engines.on_demand import OnDemandEngine
from service.engines.remote import RemoteEngine
from service.engines.scripted import ScriptedEngine
from service.metrics import Metrics
from service.settings import RolloutSettings, Settings


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def test_each_role_has_an_engine_and_the_proxys_waits_until_it_is_needed(
    proxy_release: str, bare_release: str
):
    settings = Settings(engine="scripted")
    paired = build_engines(load_release(proxy_release), settings, metrics())
    assert isinstance(paired.judge, ScriptedEngine)
    assert isinstance(paired.proxy, OnDemandEngine)
    assert build_engines(load_release(bare_release), settings, metrics()).proxy is None


def test_a_proxy_that_is_not_there_cannot_be_preloaded(bare_release: str):
    settings = Settings(engine="scripted", release=bare_release, preload="judge,proxy")
    with pytest.raises(ReleaseInvalid, match="'small' has no proxy, and PROXY_GRM_PRELOAD names"):
        create_app(settings, metrics=metrics())


def test_what_each_engine_has_in_work_is_shown():
    series = metrics()
    judge, proxy = ScriptedEngine(), ScriptedEngine()
    Engines(judge, proxy).observe(series)
    shown = series.registry.get_sample_value
    assert shown("proxy_grm_engine_running", {"role": "judge"}) == 0
    assert shown("proxy_grm_engine_running", {"role": "proxy"}) == 0


@pytest.mark.anyio
async def test_a_second_release_is_asked_of_its_own_servers(
    plain_release: str, bare_release: str, redis_url: str
):
    settings = Settings(
        engine="remote",
        release=plain_release,
        redis_url=SecretStr(redis_url),
        engine_urls={"judge": ("http://127.0.0.1:1",)},
        rollout=RolloutSettings(
            release=bare_release, percent=5, engine_urls={"judge": ("http://127.0.0.1:2",)}
        ),
    )
    app = create_app(settings, metrics=metrics())
    async with app.router.lifespan_context(app):
        gateway: Gateway = app.state.gateway
        urls: list[str] = []
        for serving in gateway.servings:
            assert isinstance(serving.engine, RemoteEngine)
            urls += [replica.url for replica in serving.engine.replicas]
    assert urls == ["http://127.0.0.1:1", "http://127.0.0.1:2"]


def test_a_second_release_with_other_pictures_is_refused(bare_release: str, tmp_path: Path):
    for part in ("judge", "prompts"):
        (tmp_path / part).symlink_to(Path(bare_release) / part)
    toml = (Path(bare_release) / "release.toml").read_text()
    (tmp_path / "release.toml").write_text(toml.replace("12544", "25088"))
    settings = Settings(
        engine="scripted", release=bare_release, rollout=RolloutSettings(release=str(tmp_path))
    )
    with pytest.raises(ReleaseInvalid, match="most_pixels"):
        create_app(settings, metrics=metrics())
