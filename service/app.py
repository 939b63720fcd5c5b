"""The gateway's composition root: settings in, application out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial

import structlog
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import start_http_server

from models.errors import ReleaseInvalid
from models.release import Release, Role, RoleName, load_release
from service import __version__
from service.admission import Admission
from service.api import batch_route, health_routes, job_routes, judging_routes, run_route
from service.api.authentication import PAGE_FILES, Authentication
from service.api.bodies import Bodies
from service.api.dialects import install_dialects
from service.api.errors import install_error_handlers
from service.api.gateway import Gateway, Serving
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
from service.rollout import Rollout
from service.scoring import Scoring
from service.settings import Settings
from service.store import Store
from service.verifying import Verifying

_log = structlog.get_logger(__name__)

_CALLER_WAITS_S = 10.0  # for a Redis that does not answer, when it is about jobs


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


@dataclass(frozen=True, slots=True)
class Served:
    """A release and its engines."""

    release: Release
    engines: Engines


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
    own = Served(release, engines or build_engines(release, settings, series))
    served = (own, *_beside(release, settings, series))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.gateway = await _start(settings, served, series, stack)
            except (EmbeddedRedisFailed, EvaluatorInvalid) as error:
                app.state.start_error = error
                raise
            yield

    app = FastAPIOffline(  # whose /docs needs nothing from the internet
        title="Proxy-GRM",
        version=__version__,
        description="Which of two answers about an image is better, why, and how sure.",
        lifespan=lifespan,
        redoc_url=None,
        static_url=PAGE_FILES,
        redirect_slashes=False,
    )
    for routes in (judging_routes, batch_route, job_routes, run_route, health_routes):
        app.include_router(routes.router)
    install_dialects(app, settings.dialects)
    install_error_handlers(app)
    install_openapi(app)
    app.state.keyring = keyring
    app.add_middleware(Authentication, keyring=keyring)
    app.add_middleware(RequestContext, metrics=series)
    return app


def _beside(first: Release, settings: Settings, metrics: Metrics) -> tuple[Served, ...]:
    """The release that is rolled out beside the first, where there is one."""
    rollout = settings.rollout
    if rollout.release is None:
        return ()
    release = load_release(rollout.release)
    if release.fingerprint == first.fingerprint:
        raise ReleaseInvalid("rollout.release is the release itself")
    if release.config.images.most_pixels != first.config.images.most_pixels:
        raise ReleaseInvalid("rollout.release: images.most_pixels is not that of the first release")
    own = settings.model_copy(update={"engine_urls": rollout.engine_urls})
    return (Served(release, build_engines(release, own, metrics)),)


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
        return RemoteEngine(role, servers, metrics, patience_s=settings.engine_patience_s)
    from service.engines.vllm_arguments import prepare_environment
    from service.engines.vllm_inprocess import VllmEngine

    prepare_environment(settings.vllm)
    return VllmEngine(release, role, settings.vllm, metrics, patience_s=settings.engine_patience_s)


async def _start(
    settings: Settings, served: Sequence[Served], metrics: Metrics, stack: AsyncExitStack
) -> Gateway:
    """Starts the parts; `stack` stops them in the opposite order."""
    release = served[0].release
    url = await _redis_url(settings, stack)
    store = Store(url, settings.cache, metrics)
    stack.push_async_callback(store.close)
    pool = ProcessPool(imports=("service.image_decoding", "service.api.schemas"))
    stack.push_async_callback(pool.close)
    fetcher = ImageFetcher(settings.image_hosts, settings.limits)
    stack.push_async_callback(fetcher.close)
    most_pixels = release.config.images.most_pixels
    images = Images(settings.limits, most_pixels, pool, fetcher, settings.cache)
    connection = Connection(url, timeout_s=_CALLER_WAITS_S / 2, retries=1)
    stack.push_async_callback(connection.close)
    gateway = compose(settings, served, (images, store, connection), metrics)
    for one, serving in zip(served, gateway.servings, strict=True):
        stack.push_async_callback(serving.roster.close)
        stack.push_async_callback(one.engines.stop)
        await one.engines.start(settings.preload)
        stack.push_async_callback(serving.honesty.close)
    served[0].engines.observe(metrics)
    watch = JobWatch(gateway.jobs, metrics)
    watch.start()
    stack.push_async_callback(watch.stop)
    if settings.metrics_port is not None:
        serving, _ = start_http_server(settings.metrics_port, settings.host, metrics.registry)
        stack.callback(serving.server_close)
        stack.callback(serving.shutdown)
    for one in served:
        name, fingerprint = one.release.config.name, one.release.fingerprint
        _log.info("gateway started", release=name, fingerprint=fingerprint)
    return gateway


def compose(
    settings: Settings,
    served: Sequence[Served],
    running: tuple[Images, Store, Connection],
    metrics: Metrics,
) -> Gateway:
    """A gateway of parts that run already."""
    images, store, connection = running
    shared = _Shared(images, store, Admission(settings.admission, metrics), Flights(store), metrics)
    own, *others = (_serving(settings, one, shared) for one in served)
    releases = tuple(one.release for one in served)
    return Gateway(
        **{field.name: getattr(own, field.name) for field in fields(own)},
        settings=settings,
        beside=others[0] if others else None,
        rollout=Rollout(releases, settings.rollout.percent, store),
        admission=shared.admission,
        jobs=JobStore(connection, settings.jobs),
        metrics=metrics,
        bodies=Bodies(settings.admission),
        pool=images.pool,
        quotas=Quotas(store),
        store=store,
        flights=shared.flights,
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all releases of a gateway have in common."""

    images: Images
    store: Store
    admission: Admission
    flights: Flights
    metrics: Metrics


def _serving(settings: Settings, served: Served, shared: _Shared) -> Serving:
    release, engines, store, metrics = served.release, served.engines, shared.store, shared.metrics
    calls = Calls(release.config, shared.images, store, shared.admission, metrics, settings.limits)
    judge = Judge(release.judge, engines.judge)
    around = Surroundings(release, judge, engines.proxy)
    roster = build_roster(settings.evaluators, around, metrics)
    stronger = settings.judging.escalation.evaluator
    if stronger is not None and stronger not in roster:
        raise EvaluatorInvalid(f"judging.escalation.evaluator: there is no evaluator {stronger!r}")
    consulting = Consulting(roster, store, metrics, settings.judging)
    honesty = Honesty(judge, release.fingerprint, store, metrics, settings.honesty)
    scoring = Scoring(
        release,
        judge,
        consulting,
        calls,
        store,
        shared.flights,
        honesty,
        metrics,
        settings.judging,
    )
    return Serving(
        release=release,
        engine=engines.judge,
        scoring=scoring,
        verifying=Verifying(roster, calls, metrics, settings.judging),
        rankings=Rankings(calls, scoring, consulting),
        roster=roster,
        honesty=honesty,
    )


async def _redis_url(settings: Settings, stack: AsyncExitStack) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    embedded = EmbeddedRedis(settings.state_dir)
    url = await embedded.start()
    stack.push_async_callback(embedded.stop)
    return url
