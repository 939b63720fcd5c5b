"""Every metric of the service, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_OUR_FAULT = ("engine_unavailable", "store_unavailable", "deadline_exceeded", "overloaded")


class Metrics:
    """The service's own series; vLLM's ``vllm:*`` stand beside them in the global registry.

    Label values are bounded: routes are route templates, outcomes are ``ok``,
    ``abstain``, ``cancelled`` or an error code, evaluators those of the settings.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.inflight = Gauge("proxy_grm_inflight", "Judgements in work", registry=registry)
        self.queued = Gauge(
            "proxy_grm_queued", "Judgements waiting for their turn", registry=registry
        )
        self.requests = Counter(
            "proxy_grm_requests",
            "Requests by how they ended; the lines of a batch count one each",
            ["route", "outcome"],
            registry=registry,
        )
        self.abstentions = Counter(
            "proxy_grm_abstentions", "Judgements without a verdict", ["reason"], registry=registry
        )
        self.injection_attempts = Counter(
            "proxy_grm_injection_attempts",
            "Control tokens and grammar tags found in candidate text",
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "proxy_grm_stage_seconds",
            "Where a judgement's time goes",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.label_mass = Histogram(
            "proxy_grm_label_mass",
            "Probability on the two labels at the verdict token; low values are a warning",
            ["source"],
            buckets=(0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0),
            registry=registry,
        )  # judge | evaluator
        self.low_label_mass = Counter(
            "proxy_grm_low_label_mass",
            "Verdict tokens with less probability on the two labels than judging.label_mass",
            ["source"],
            registry=registry,
        )  # judge | evaluator
        self.cache = Counter(
            "proxy_grm_cache", "Judgement cache", ["outcome"], registry=registry
        )  # hit | miss | unavailable
        self.rubric_gate = Counter(
            "proxy_grm_rubric_gate",
            "Judgements that went through the rubric gate, by why no further rubric was drafted",
            ["stopped"],
            registry=registry,
        )  # agreed | attempts | unchecked | deadline | failed
        self.rubric_attempts = Histogram(
            "proxy_grm_rubric_attempts",
            "Rubrics that a judgement took to pass the rubric gate, or to be let through",
            buckets=(1, 2, 3, 4, 6, 8),
            registry=registry,
        )
        self.evaluations = Counter(
            "proxy_grm_evaluations",
            "Evaluators asked, by how that ended",
            ["evaluator", "status"],
            registry=registry,
        )  # ok | abstain | timeout | unavailable
        self.evaluator_seconds = Histogram(
            "proxy_grm_evaluator_seconds",
            "How long an evaluator that answered took",
            ["evaluator"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.evaluator_open = Gauge(
            "proxy_grm_evaluator_open",
            "1 while an evaluator's circuit breaker is open or half open",
            ["evaluator"],
            registry=registry,
        )
        self.verdicts_by_reading = Counter(
            "proxy_grm_verdicts_by_reading",
            "Verdicts of single passes, by whether the preferred response was read first",
            ["read"],
            registry=registry,
        )  # first | second
        self.verdicts_by_length = Counter(
            "proxy_grm_verdicts_by_length",
            "Verdicts between responses of different lengths, by which of them is preferred",
            ["preferred"],
            registry=registry,
        )  # longer | shorter
        self.probes = Counter(
            "proxy_grm_probes",
            "Judgements made again with the images blanked, by what became of the verdict",
            ["outcome"],
            registry=registry,
        )  # same | changed | abstain | failed | skipped
        self.image_reliance = Histogram(
            "proxy_grm_image_reliance",
            "How far blanking the images moves the probability",
            buckets=(0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0),
            registry=registry,
        )
        self.engine_deaths = Counter(
            "proxy_grm_engine_deaths",
            "Deaths of engines, by role in this process, by address elsewhere",
            ["engine"],
            registry=registry,
        )
        self.engine_running = Gauge(
            "proxy_grm_engine_running",
            "Generations that an engine has in work for this gateway",
            ["role"],
            registry=registry,
        )
        self.engine_retries = Counter(
            "proxy_grm_engine_retries",
            "Generations asked of another engine server after the first had lost them",
            registry=registry,
        )
        self.jobs_unfinished = Gauge(
            "proxy_grm_jobs_unfinished",
            "Jobs that have not ended; every gateway tells the same, or NaN without Redis",
            registry=registry,
        )
        self.job_lines_unfinished = Gauge(
            "proxy_grm_job_lines_unfinished",
            "Lines of these jobs that have no result yet",
            registry=registry,
        )
        self.admission = Counter(
            "proxy_grm_admission",
            "What became of those who asked for a place",
            ["outcome"],
            registry=registry,
        )  # admitted | full | hopeless | displaced | too_long | left
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """So that shares are known, and increases seen, before the first of a kind happens."""
        for route in ("/score", "/score/batch line"):
            for outcome in ("ok", *_OUR_FAULT):
                self.requests.labels(route, outcome)
        for metric, values in (
            (self.admission, ("admitted", "full", "hopeless", "displaced", "too_long", "left")),
            (self.abstentions, ("unreadable", "truncated", "disagreement")),
            (self.stage_seconds, ("queue", "image", "engine", "total")),
            (self.rubric_gate, ("agreed", "attempts", "unchecked", "deadline", "failed")),
            (self.label_mass, ("judge", "evaluator")),
            (self.low_label_mass, ("judge", "evaluator")),
            (self.cache, ("hit", "miss", "unavailable")),
            (self.verdicts_by_reading, ("first", "second")),
            (self.verdicts_by_length, ("longer", "shorter")),
            (self.probes, ("same", "changed", "abstain", "failed", "skipped")),
        ):
            for value in values:
                metric.labels(value)

    def saw_label_mass(
        self, source: Literal["judge", "evaluator"], masses: Iterable[float | None], least: float
    ) -> None:
        """Observes verdict tokens, and counts those with less than `least` on the two labels."""
        for mass in masses:
            if mass is not None:
                self.label_mass.labels(source).observe(mass)
                self.low_label_mass.labels(source).inc(mass < least)
