"""The gateway's composition root: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
from fastapi import FastAPI
from prometheus_client import start_http_server

from models.errors import ReleaseInvalid
from models.release import Release, Role, RoleName, load_release
from service import __version__
from service.admission import Admission
from service.api import batch_route, health_routes, job_routes, judging_routes, run_route
from service.api.authentication import Authentication
from service.api.bodies import Bodies
from service.api.dialects import install_dialects
from service.api.errors import install_error_handlers
from service.api.gateway import Gateway
from service.api.middleware import RequestContext
from service.api.openapi import install_openapi
from service.calls import Calls
from service.concurrency import together
from service.consulting import Consulting
from service.embedded_redis import EmbeddedRedis, EmbeddedRedisFailed
from service.engines import Engine
from service.engines.on_demand import OnDemandEngine
from service.evaluators import EvaluatorInvalid, Surroundings, build_roster
from service.flights import Flights
from service.honesty import Honesty
from service.image_fetching import ImageFetcher
from service.images import Images
from service.jobs import JobStore, JobWatch
from service.jobs.connection import Connection
from service.judging import Judge
from service.keys import Keyring
from service.metrics import Metrics
from service.process_pool import ProcessPool
from service.quotas import Quotas
from service.ranking import Rankings
from service.scoring import Scoring
from service.settings import Settings
from service.store import Store
from service.verifying import Verifying

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Engines:
    """One engine a role; `proxy` is None when the release has none."""

    judge: Engine
    proxy: Engine | None = None

    async def start(self, preload: Collection[RoleName]) -> None:
        """Starts the judge's, and the proxy's where it is to be preloaded."""
        await self.judge.start()
        if self.proxy is not None and "proxy" in preload:
            await self.proxy.start()

    def observe(self, metrics: Metrics) -> None:
        """Shows what each has in work."""
        for role, engine in (("judge", self.judge), ("proxy", self.proxy)):
            if engine is not None:
                metrics.engine_running.labels(role).set_function(partial(_running, engine))

    async def stop(self) -> None:
        """Stops both at once: each may take its seconds."""
        await together(engine.stop() for engine in (self.proxy, self.judge) if engine is not None)


def _running(engine: Engine) -> int:
    return engine.running


def create_app(
    settings: Settings, *, engines: Engines | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """The gateway as an ASGI application.

    Args:
        settings: what to serve and how.
        engines: used instead of those that the settings name.
        metrics: used instead of the process-wide ones; tests start many gateways.

    Raises:
        ReleaseInvalid: the release cannot be used.
        KeysInvalid: the file of API keys cannot be used.
    """
    release = load_release(settings.release)
    if "proxy" in settings.preload and release.proxy is None:
        raise ReleaseInvalid(
            f"release {release.config.name!r} has no proxy, and PROXY_GRM_PRELOAD names it"
        )
    keyring = None if settings.api_keys_file is None else Keyring(settings.api_keys_file)
    series = metrics or Metrics()
    running = engines or build_engines(release, settings, series)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.gateway = await _start(settings, release, running, series, stack)
            except (EmbeddedRedisFailed, EvaluatorInvalid) as error:
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
    for routes in (judging_routes, batch_route, job_routes, run_route, health_routes):
        app.include_router(routes.router)
    install_dialects(app, settings.dialects)
    install_error_handlers(app)
    install_openapi(app)
    app.add_middleware(Authentication, keyring=keyring)
    app.add_middleware(RequestContext, metrics=series)
    return app


def build_engines(release: Release, settings: Settings, metrics: Metrics) -> Engines:
    """The engines that the settings name; the proxy's waits until it is needed."""
    judge = _build_engine(release, release.judge, settings, metrics)
    served = settings.engine != "remote" or "proxy" in settings.engine_urls
    if release.proxy is None or not served:
        return Engines(judge)
    proxy = _build_engine(release, release.proxy, settings, metrics)
    return Engines(judge, OnDemandEngine(proxy))


def _build_engine(release: Release, role: Role, settings: Settings, metrics: Metrics) -> Engine:
    """Torch and vllm are imported for `vllm` alone."""
    if settings.engine == "scripted":
        from service.engines.scripted import ScriptedEngine

        return ScriptedEngine(seconds=settings.scripted.seconds, keeps_requests=False)
    if settings.engine == "remote":
        from service.engines.remote import RemoteEngine, Servers
        from service.engines.vllm_common import served_name

        servers = Servers(
            settings.engine_urls[role.name], served_name(release, role), settings.engine_api_key
        )
        return RemoteEngine(role, servers, metrics)
    from service.engines.vllm_arguments import prepare_environment
    from service.engines.vllm_inprocess import VllmEngine

    prepare_environment(settings.vllm)
    return VllmEngine(release, role, settings.vllm, metrics)


async def _start(
    settings: Settings, release: Release, engines: Engines, metrics: Metrics, stack: AsyncExitStack
) -> Gateway:
    """Starts the parts; `stack` stops them in the opposite order."""
    url = await _redis_url(settings, stack)
    store = Store(url, settings.cache, metrics)
    stack.push_async_callback(store.close)
    pool = ProcessPool(imports=("service.image_decoding", "service.api.schemas"))
    stack.push_async_callback(pool.close)
    fetcher = ImageFetcher(settings.image_hosts, settings.limits)
    stack.push_async_callback(fetcher.close)
    most_pixels = release.config.images.most_pixels
    images = Images(settings.limits, most_pixels, pool, fetcher, settings.cache)
    connection = Connection(url)
    stack.push_async_callback(connection.close)
    gateway = compose(settings, release, engines, (images, store, connection), metrics)
    stack.push_async_callback(gateway.roster.close)
    stack.push_async_callback(engines.stop)
    await engines.start(settings.preload)
    engines.observe(metrics)
    watch = JobWatch(gateway.jobs, metrics)
    watch.start()
    stack.push_async_callback(watch.stop)
    stack.push_async_callback(gateway.honesty.close)
    if settings.metrics_port is not None:
        serving, _ = start_http_server(settings.metrics_port, settings.host, metrics.registry)
        stack.callback(serving.server_close)
        stack.callback(serving.shutdown)
    _log.info("gateway started", release=release.config.name, fingerprint=release.fingerprint)
    return gateway


def compose(
    settings: Settings,
    release: Release,
    engines: Engines,
    running: tuple[Images, Store, Connection],
    metrics: Metrics,
) -> Gateway:
    """A gateway of parts that run already."""
    images, store, connection = running
    admission = Admission(settings.admission, metrics)
    calls = Calls(release.config, images, store, admission, metrics, settings.limits)
    judge = Judge(release.judge, engines.judge)
    flights = Flights(store)
    around = Surroundings(release, judge, engines.proxy)
    roster = build_roster(settings.evaluators, around, metrics)
    stronger = settings.judging.escalation.evaluator
    if stronger is not None and stronger not in roster:
        raise EvaluatorInvalid(f"judging.escalation.evaluator: there is no evaluator {stronger!r}")
    consulting = Consulting(roster, store, metrics, settings.judging)
    honesty = Honesty(judge, release.fingerprint, store, metrics, settings.honesty)
    scoring = Scoring(
        release, judge, consulting, calls, store, flights, honesty, metrics, settings.judging
    )
    verifying = Verifying(roster, calls, metrics, settings.judging)
    rankings = Rankings(calls, scoring, consulting)
    jobs = JobStore(connection, settings.jobs)
    return Gateway(
        settings=settings,
        release=release,
        engine=engines.judge,
        admission=admission,
        scoring=scoring,
        verifying=verifying,
        rankings=rankings,
        roster=roster,
        honesty=honesty,
        jobs=jobs,
        metrics=metrics,
        bodies=Bodies(settings.admission),
        pool=images.pool,
        quotas=Quotas(store),
        store=store,
        flights=flights,
    )


async def _redis_url(settings: Settings, stack: AsyncExitStack) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    embedded = EmbeddedRedis(settings.state_dir)
    url = await embedded.start()
    stack.push_async_callback(embedded.stop)
    return url
