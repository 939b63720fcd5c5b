"""Settings: the only reader of the environment.

``PROXY_GRM_*`` variables (nested with ``__``) over the TOML file that
``PROXY_GRM_CONFIG`` names, over the defaults here.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from models.release import RoleName

CONFIG_VARIABLE = "PROXY_GRM_CONFIG"
DialectName = Literal["openrlhf", "proxy_grm", "r1_reward"]
CLIENT_VARIABLES = ("PROXY_GRM_URL", "PROXY_GRM_API_KEY")
"""Read by the client alone; whoever has set them may start a service too."""


EvaluatorName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=64)
]
"""What can stand in a variable's name: `PROXY_GRM_EVALUATORS__MY_JUDGE__API_KEY`."""
ImageHost = Annotated[
    str, StringConstraints(pattern=r"^(https?://)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$")
]


JOB_SOURCE_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "az")
JobSource = Annotated[
    str, StringConstraints(pattern=rf"^({'|'.join(JOB_SOURCE_SCHEMES)})://[^*?#\[\]{{}}\\]+$")
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdmissionSettings(_Section):
    """How much is worked on at once; what is over the bounds is refused with 429."""

    running: int = Field(default=64, ge=1, description="judgements in work")
    waiting: int = Field(default=1024, ge=0, description="judgements waiting for their turn")
    queue_s: float = Field(
        default=120.0, gt=0, description="the longest wait for a turn, whatever time a caller has"
    )
    bodies_bytes: int = Field(
        default=2**30, ge=1024, description="request bodies in memory, until they are answered"
    )
    uploads: int = Field(default=16, ge=1, description="batches and job uploads at a time")


class LimitSettings(_Section):
    """Sizes over which a request is refused before work is done on it."""

    head_s: float = Field(
        default=20.0, gt=0, description="until the head of a request has come on a connection"
    )
    body_s: float = Field(
        default=60.0,
        gt=0,
        description="until a body has come, or the next piece of a batch; or until a caller takes "
        "more of an answer",
    )
    upload_bytes_per_s: int = Field(
        default=1024, ge=1, description="a batch that comes more slowly, for `body_s`, is ended"
    )
    body_bytes: int = Field(
        default=64 * 2**20, ge=1024, description="one request, or one line of a batch"
    )
    batch_bytes: int = Field(
        default=4 * 2**30, ge=1024, description="a whole NDJSON upload; it waits on disk"
    )
    batch_in_work: int = Field(default=64, ge=1, description="lines of one batch judged at a time")
    text_characters: int = Field(
        default=1_000_000, ge=1, description="question, each response, rubric"
    )
    image_bytes: int = Field(default=32 * 2**20, ge=1024, description="one picture, encoded")
    image_pixels: int = Field(
        default=25_000_000, ge=28 * 28, description="one picture, width times height"
    )
    image_fetch_s: float = Field(
        default=10.0, gt=0, description="until a picture has come from its URL"
    )


class EscalationSettings(_Section):
    """How order escalate goes on while it is undecided: votes, then a stronger evaluator."""

    band: float = Field(
        default=0.25,
        ge=0,
        le=0.5,
        description="undecided, once both orders were read, is a probability nearer to 0.5",
    )
    votes: int = Field(default=4, ge=1, le=16, description="further passes an order")
    temperature: float = Field(default=0.7, gt=0, le=2, description="of these")
    evaluator: EvaluatorName | None = Field(
        default=None, description="asked last, if it is still undecided; absent: nobody"
    )


class GateSettings(_Section):
    """The rubric gate: another rubric is drafted while evaluators do not reach the verdict."""

    attempts: int = Field(
        default=1,
        ge=1,
        le=8,
        description="judgements by a rubric of the judge's own at most, where a request names "
        "evaluators and does not say; 1: no gate",
    )
    agreement: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="enough is this share of the opinions that prefer what the judge does",
    )
    temperature: float = Field(
        default=0.7, gt=0, le=2, description="of further rubrics, where a request has none"
    )


class JudgingSettings(_Section):
    """How judgements are made where a request leaves it open."""

    band: float = Field(
        default=0.4,
        ge=0,
        le=0.5,
        description="orders adaptive and escalate: swapped too while the first probability is "
        "nearer to 0.5",
    )
    label_mass: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="a verdict token with less probability than this on the two labels is flagged "
        "in the answer and counted in proxy_grm_low_label_mass_total",
    )
    escalation: EscalationSettings = Field(
        default=EscalationSettings(), description="how order escalate goes on"
    )
    gate: GateSettings = Field(
        default=GateSettings(), description="rubrics that evaluators must be able to judge by"
    )


class EvaluatorSettings(_Section):
    """Somebody who judges by a rubric, and how patient the gateway is with them."""

    kind: str = Field(
        description="a shipped kind, what an installed package brings, or package.module:Class"
    )
    weight: float = Field(default=1.0, ge=0, description="on a panel; the judge's own is 1")
    timeout_s: float = Field(
        default=30.0, gt=0, description="for an opinion, retries and waiting included"
    )
    attempts: int = Field(default=2, ge=1, description="before it counts as failed")
    concurrency: int = Field(default=32, ge=1, description="opinions asked of it at once")
    breaker_failures: int = Field(
        default=5, ge=1, description="in a row, after which it is not asked for a while"
    )
    breaker_open_s: float = Field(default=30.0, gt=0, description="how long that is")
    api_key: SecretStr | None = Field(default=None, description="from the environment alone")
    options: dict[str, Any] = Field(default_factory=dict, description="of its kind")

    @field_validator("options")
    @classmethod
    def _no_key(cls, value: dict[str, Any]) -> dict[str, Any]:
        """There it would be printed."""
        if "api_key" in value:
            raise ValueError("an API key is the evaluator's api_key, not one of its options")
        return value


class HonestySettings(_Section):
    """Probes that look for judgements made without looking."""

    probe_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the judgements made again with the images blanked; each costs one",
    )
    probes_at_once: int = Field(
        default=4, ge=1, description="while so many are running, others are skipped"
    )


class VllmSettings(_Section):
    """VLLM, in the gateway's process or as `python -m service engine`."""

    kv_cache_gib: int = Field(
        default=1,
        ge=1,
        description="memory of each engine for prefixes and running work; CPU only",
    )
    memory_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=(
            "share of GPU memory that each engine takes: vLLM's default, or 0.45 where the "
            "release has a proxy; on the CPU kv_cache_gib decides"
        ),
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="further arguments of vllm.AsyncEngineArgs, by their names",
    )
    proxy_args: dict[str, Any] = Field(
        default_factory=dict, description="the same for the proxy's engine alone, over args"
    )


class ScriptedSettings(_Section):
    """The scripted engine, for rehearsals."""

    seconds: float = Field(default=0.0, ge=0, description="that a generation takes")


class CacheSettings(_Section):
    """What the store keeps and for how long."""

    judgement_ttl_s: int = Field(
        default=7 * 86_400, ge=1, description="a judgement that may be given again"
    )
    rubric_ttl_s: int = Field(
        default=30 * 86_400, ge=1, description="a rubric that may be named by its id"
    )
    answer_ttl_s: int = Field(
        default=86_400, ge=1, description="an answer to a request with an Idempotency-Key"
    )
    image_bytes: int = Field(
        default=256 * 2**20,
        ge=0,
        description="decoded pictures in this gateway's memory, which may be named by their sha256",
    )
    run_ttl_s: int = Field(
        default=30 * 86_400, ge=1, description="a run's counts, from its last judgement on"
    )


class JobSettings(_Section):
    """What jobs may be, and for how long they are kept."""

    lines: int = Field(default=1_000_000, ge=1, description="in one job")
    active: int = Field(default=1000, ge=1, description="jobs that have not ended; more get 429")
    lease_s: float = Field(
        default=30.0, ge=0.5, description="until the work of a worker that died is taken over"
    )
    retention_s: int = Field(
        default=7 * 86_400, ge=1, description="a job and its results, after it ended"
    )
    unfinished_s: int = Field(
        default=30 * 86_400, ge=1, description="a job that does not end, after it came in"
    )


class WorkerSettings(_Section):
    """What a worker sends lines to, and how many at a time."""

    gateway_url: str = Field(
        default="http://127.0.0.1:8000", description="a gateway, or what stands before many"
    )
    api_key: SecretStr | None = Field(
        default=None, description="an admin's, where the gateway asks for keys"
    )
    in_flight: int = Field(
        default=64, ge=1, description="lines in work at most; fewer while the gateway refuses"
    )


EngineUrls = Annotated[dict[RoleName, tuple[str, ...]], NoDecode]
"""Servers by role: ``judge=url,url;proxy=url`` in the environment, a table in the file."""


def _urls_of_roles(value: object) -> object:
    if not isinstance(value, str):
        return value
    roles = (part.partition("=") for part in value.split(";") if part.strip())
    return {
        role.strip(): [url.strip() for url in urls.split(",") if url.strip()]
        for role, _, urls in roles
    }


def _check_urls(place: str, urls_of_roles: dict[RoleName, tuple[str, ...]]) -> None:
    if not urls_of_roles.get("judge"):
        raise ValueError(f"engine remote needs {place}: judge=http://host:port,…")
    for url in (url for urls in urls_of_roles.values() for url in urls):
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{place}: {url!r} is no http:// or https:// URL")
        if url.rstrip("/").endswith("/v1"):
            raise ValueError(f"{place}: {url!r}: leave /v1 away, other routes are asked too")


class RolloutSettings(_Section):
    """A second release beside the first."""

    release: str | None = Field(
        default=None, description="shipped name, path or hub id; absent: there is none"
    )
    percent: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="of the runs and questions that name no release; 0: only who names it gets it",
    )
    engine_urls: EngineUrls = Field(
        default={}, description="remote: its servers, all with this release's weights"
    )

    @field_validator("engine_urls", mode="before")
    @classmethod
    def _urls(cls, value: object) -> object:
        return _urls_of_roles(value)


class Settings(BaseSettings):
    """Everything that can be set, each with its unit and what follows from it."""

    model_config = SettingsConfigDict(
        env_prefix="PROXY_GRM_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(
        default=8000, ge=0, le=65_535, description="port to listen on; 0 takes a free one"
    )
    release: str = Field(default="tiny", description="shipped name, path or hub id")
    engine: Literal["vllm", "remote", "scripted"] = Field(
        default="vllm",
        description=(
            "vllm: in this process. remote: vLLM servers at engine_urls. scripted: deterministic, "
            "no model, for tests"
        ),
    )
    engine_urls: EngineUrls = Field(
        default={}, description="remote: the servers of each role, all with the release's weights"
    )
    engine_api_key: SecretStr | None = Field(
        default=None, description="of those servers: what they ask for, and a gateway sends"
    )
    engine_patience_s: float = Field(
        default=60.0,
        gt=0,
        description=(
            "without anything from an engine that has work until it is asked for one token, and "
            "then for that; it is started again, or a server avoided, when none comes"
        ),
    )
    preload: Annotated[tuple[RoleName, ...], NoDecode] = Field(
        default=("judge",),
        description="roles whose engines start with the gateway; the proxy else on first use",
    )
    redis_url: SecretStr | None = Field(
        default=None, description="absent: an embedded Redis under state_dir"
    )
    state_dir: Path = Field(default=Path("state"), description="what the embedded Redis keeps")
    api_keys_file: Path | None = Field(
        default=None, description="who may ask; absent: everybody who reaches the port"
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="for /metrics alone; absent: beside the rest"
    )
    image_hosts: Annotated[tuple[ImageHost, ...], NoDecode] = Field(
        default=(),
        description="where images may be fetched: host, host:port, http://host; empty: nowhere",
    )
    job_sources: Annotated[tuple[JobSource, ...], NoDecode] = Field(
        default=(),
        description="prefixes of URLs from which jobs may be read: file://, s3://, …; empty: none",
    )
    workers: int = Field(
        default=0, ge=0, le=64, description="workers that start and stop with this gateway"
    )
    dialects: Annotated[tuple[DialectName, ...], NoDecode] = Field(
        default=(), description="requests of public trainers that are answered too; empty: none"
    )
    drain_s: float = Field(
        default=30.0, ge=0, description="how long a stopping process finishes its work"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, JSON lines elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    admission: AdmissionSettings = AdmissionSettings()
    limits: LimitSettings = LimitSettings()
    judging: JudgingSettings = JudgingSettings()
    rollout: RolloutSettings = RolloutSettings()
    evaluators: dict[EvaluatorName, EvaluatorSettings] = Field(
        default={}, description="who can be asked besides `self` and the release's `proxy`"
    )
    honesty: HonestySettings = HonestySettings()
    vllm: VllmSettings = VllmSettings()
    scripted: ScriptedSettings = ScriptedSettings()
    cache: CacheSettings = CacheSettings()
    jobs: JobSettings = JobSettings()
    worker: WorkerSettings = WorkerSettings()

    @field_validator("engine_urls", mode="before")
    @classmethod
    def _urls(cls, value: object) -> object:
        return _urls_of_roles(value)

    @model_validator(mode="after")
    def _remote_has_urls(self) -> Self:
        beside = self.rollout.release is not None
        if beside and self.engine == "vllm":
            raise ValueError("rollout.release: two releases side by side need engine remote")
        if self.engine == "remote":
            _check_urls("engine_urls", self.engine_urls)
            if beside:
                _check_urls("rollout.engine_urls", self.rollout.engine_urls)
        return self

    @field_validator("job_sources", mode="before")
    @classmethod
    def _prefixes_in_a_row(cls, value: object) -> object:
        """``file:///data/pairs,s3://bucket/pairs`` in the environment, a list in the file."""
        if not isinstance(value, str):
            return value
        return [prefix.strip() for prefix in value.split(",") if prefix.strip()]

    @field_validator("image_hosts", mode="before")
    @classmethod
    def _hosts_in_a_row(cls, value: object) -> object:
        """``a.example,b.example`` in the environment, a list in the file."""
        if not isinstance(value, str):
            return value
        return [host.strip().lower() for host in value.split(",") if host.strip()]

    @field_validator("dialects", mode="before")
    @classmethod
    def _dialects_in_a_row(cls, value: object) -> object:
        """``proxy_grm,openrlhf`` in the environment, a list in the file."""
        if not isinstance(value, str):
            return value
        return sorted({name.strip() for name in value.split(",")} - {""})

    @field_validator("preload", mode="before")
    @classmethod
    def _names_in_a_row(cls, value: object) -> object:
        """``judge,proxy`` in the environment, a list in the file; the judge always starts."""
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)):
            return names  # for pydantic to refuse
        return sorted({"judge", *(str(name).strip() for name in names)} - {""})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        file = os.environ.get(CONFIG_VARIABLE)
        if file is None:
            return init_settings, env_settings
        if not Path(file).is_file():
            raise FileNotFoundError(f"{CONFIG_VARIABLE} names {file}, which is no file")
        written = TomlConfigSettingsSource(settings_cls, Path(file))
        _refuse_keys(written.toml_data)
        return init_settings, env_settings, written

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, which may resolve to anything
            return False


def _refuse_keys(written: dict[str, Any]) -> None:
    """Files are committed, and mounted where many can read them.

    Raises:
        SettingsError: one of the evaluators has its API key in the file.
    """
    evaluators = written.get("evaluators")
    for name, evaluator in evaluators.items() if isinstance(evaluators, dict) else ():
        if isinstance(evaluator, dict) and "api_key" in evaluator:
            variable = f"PROXY_GRM_EVALUATORS__{name.upper()}__API_KEY"
            raise SettingsError(f"evaluators.{name}.api_key is not for a file; set {variable}")


def child_environment(**changes: str) -> dict[str, str]:
    """What a process that this one starts finds: our own environment and these settings."""
    return {**os.environ, **{f"PROXY_GRM_{name}": value for name, value in changes.items()}}


def unknown_variables() -> list[str]:
    """What to say of each ``PROXY_GRM_*`` name that no setting answers to.

    A typo must not pass in silence.
    """
    known = {f"PROXY_GRM_{name}".upper() for name in Settings.model_fields}
    known |= {CONFIG_VARIABLE, *CLIENT_VARIABLES}
    complaints: list[str] = []
    for name in sorted(os.environ):
        stem = name.split("__")[0].upper()
        if name.startswith("PROXY_GRM_") and stem not in known:
            close = difflib.get_close_matches(stem, known, 1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            complaints.append(f"no setting is called {name}{meant}")
    return complaints
