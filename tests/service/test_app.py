from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from models.errors import ReleaseInvalid
from models.release import load_release
from service.app import Engines, build_engines, create_app
from service.engines.on_demand import OnDemandEngine
from service.engines.scripted import ScriptedEngine
from service.metrics import Metrics
from service.settings import Settings


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
