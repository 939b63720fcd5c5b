"""The gateway's composition root: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from fastapi import FastAPI

from models.release import Release, load_release
from service import __version__
from service.admission import Admission
from service.api import batch_route, health_routes, judging_routes
from service.api.errors import install_error_handlers
from service.api.gateway import Gateway
from service.api.middleware import RequestContext
from service.api.openapi import install_openapi
from service.embedded_redis import EmbeddedRedis, EmbeddedRedisFailed
from service.engines import Engine
from service.images import Images
from service.judging import Judge
from service.metrics import Metrics
from service.scoring import Scoring
from service.settings import Settings
from service.store import Store

_log = structlog.get_logger(__name__)


def create_app(
    settings: Settings, *, engine: Engine | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        settings: what to serve and how.
        engine: used instead of the one that the settings name.
        metrics: used instead of the process-wide ones; tests start many gateways.

    Raises:
        ReleaseInvalid: the release cannot be used.
    """
    release = load_release(settings.release)
    series = metrics or Metrics()
    judging_engine = engine or build_engine(release, settings, series)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.gateway = await _start(settings, release, judging_engine, series, stack)
            except EmbeddedRedisFailed as error:
                app.state.start_error = error
                raise
            yield

    app = FastAPI(
        title="Proxy-GRM",
        version=__version__,
        description="Which of two answers about an image is better, why, and how sure.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    for routes in (judging_routes, batch_route, health_routes):
        app.include_router(routes.router)
    install_error_handlers(app)
    install_openapi(app)
    app.add_middleware(RequestContext, metrics=series)
    return app


def build_engine(release: Release, settings: Settings, metrics: Metrics) -> Engine:
    """The engine that the settings name; torch and vllm are imported for `vllm` alone."""
    if settings.engine == "scripted":
        from service.engines.scripted import ScriptedEngine

        return ScriptedEngine()
    from service.engines import vllm_inprocess

    vllm_inprocess.prepare_environment(release, settings.vllm)
    return vllm_inprocess.VllmEngine(release, settings.vllm, metrics)


async def _start(
    settings: Settings, release: Release, engine: Engine, metrics: Metrics, stack: AsyncExitStack
) -> Gateway:
    """Starts the parts; `stack` stops them in the opposite order."""
    store = Store(await _redis_url(settings, stack), settings.cache, metrics)
    stack.push_async_callback(store.close)
    images = Images(settings.limits, release.config.images.most_pixels)
    stack.push_async_callback(images.close)
    await engine.start()
    stack.push_async_callback(engine.stop)
    admission = Admission(settings.admission, metrics)
    scoring = Scoring(
        release, Judge(release, engine), images, store, admission, metrics, settings.limits
    )
    _log.info("gateway started", release=release.config.name, fingerprint=release.fingerprint)
    return Gateway(settings, release, engine, admission, scoring, metrics)


async def _redis_url(settings: Settings, stack: AsyncExitStack) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    embedded = EmbeddedRedis(settings.state_dir)
    url = await embedded.start()
    stack.push_async_callback(embedded.stop)
    return url
