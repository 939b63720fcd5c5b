"""GRPO on TRL: rollouts of judgements, rewarded for the verdict, the form and the rubric."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from datasets import Dataset
from proxy_grm_client import AsyncClient, NotFound, ProxyGrmError, Unauthenticated
from proxy_grm_client import Rubric as SentRubric

from models.comparison import Comparison, LabeledComparison
from models.judgement import Part
from models.neutralise import Neutraliser
from models.prompts import FilledPrompt, Prompts
from models.rubric import Rubric
from models.toyworld import ToyCase
from models.training.collate import chat_messages
from models.training.errors import ProxySilent
from models.training.examples import Example, Mixture
from models.training.rewards import Aggregate, Opinion, components, rubric_of


@dataclass(frozen=True, slots=True)
class Task:
    """One prompt to roll out, and what is known about it.

    Attributes:
        begins_with: where the rollout's judgement begins.
    """

    prompt: FilledPrompt
    labeled: LabeledComparison
    begins_with: Part = "rubric"


def lazy_tasks(number: int, make: Callable[[int], Task]) -> Dataset:
    """A data set of rollout prompts, each made when it is read from its index alone."""

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        # The rollouts of one prompt share its task: drawn once, and the proxy is asked once.
        made = {index: make(index) for index in set(batch["index"])}
        tasks = [made[index] for index in batch["index"]]
        return {
            "prompt": [chat_messages(Example(t.prompt.system, t.prompt.user, ())) for t in tasks],
            "task": tasks,
        }

    return Dataset.from_dict({"index": range(number)}).with_transform(rows)


def toy_task(case: ToyCase, prompts: Prompts, neutralise: Neutraliser, rng: random.Random) -> Task:
    """A drawn case as the judge is asked (to write a rubric), or as the proxy is."""
    if "proxy" not in prompts:
        labeled = case.labeled()
        return Task(prompts["write_rubric"].fill(labeled.comparison, neutralise), labeled)
    if case.stratum == "rubric" and rng.random() < 0.5:
        case = case.with_priority_reversed()
    case = case.with_rubric_varied(rng, stated=rng.random() >= Mixture().unstated)
    return proxy_task(case.labeled(), case.rubric, prompts, neutralise)


def proxy_task(
    labeled: LabeledComparison, rubric: Rubric, prompts: Prompts, neutralise: Neutraliser
) -> Task:
    """A pair with a rubric, as the proxy is asked."""
    prompt = prompts["proxy"].fill(labeled.comparison, neutralise, rubric)
    return Task(prompt, labeled, "evaluation")


class AsksProxy(Protocol):
    """Somebody who judges a comparison by a rubric alone."""

    async def opinions(self, asked: Sequence[tuple[Comparison, Rubric]]) -> list[Opinion | None]:
        """One opinion a question, in their order; None for an abstention or a failure."""
        ...


class ServedProxy:
    """The proxy of a running service, asked through the SDK.

    An API key is taken from ``PROXY_GRM_API_KEY``.

    Args:
        url: the service; its release must have a proxy.
        concurrency: questions at a time.
        timeout_s: for one question, retries included.
    """

    def __init__(self, url: str, concurrency: int = 64, timeout_s: float = 120.0) -> None:
        self.url, self.concurrency, self.timeout_s = url, concurrency, timeout_s

    async def opinions(self, asked: Sequence[tuple[Comparison, Rubric]]) -> list[Opinion | None]:
        """Asks all of them; the same question is asked once.

        Raises:
            ProxySilent: the service will not answer, however often it is asked.
        """
        places = asyncio.Semaphore(self.concurrency)
        async with AsyncClient(self.url, timeout_s=self.timeout_s) as client:
            waiting: dict[tuple[int, str], asyncio.Task[Opinion | None]] = {}
            for comparison, rubric in asked:
                key = id(comparison), rubric.text
                if key not in waiting:
                    waiting[key] = asyncio.create_task(
                        self._ask(client, places, comparison, rubric)
                    )
            try:
                await asyncio.gather(*waiting.values())
            finally:
                for task in waiting.values():
                    task.cancel()
                await asyncio.gather(*waiting.values(), return_exceptions=True)
            return [waiting[id(comparison), rubric.text].result() for comparison, rubric in asked]

    async def _ask(
        self, client: AsyncClient, places: asyncio.Semaphore, comparison: Comparison, rubric: Rubric
    ) -> Opinion | None:
        images = [image.pixels for image in comparison.images]
        async with places:
            try:
                # As a rubric and not as a string: one that begins with "rub_" would be an id.
                found = await client.verify(
                    comparison.question,
                    comparison.responses,
                    images,
                    rubric=SentRubric(id=rubric.id, text=rubric.text),
                )
            except Unauthenticated:
                raise ProxySilent(
                    f"{self.url} wants an API key: put one in PROXY_GRM_API_KEY"
                ) from None
            except NotFound as error:
                raise ProxySilent(
                    f"{self.url} has no proxy to ask: serve a release with one ({error})"
                ) from None
            except (ProxyGrmError, httpx.HTTPError):
                return None
        if found.preferred is None or found.probability is None:
            return None
        return Opinion(found.preferred, found.probability)


_SILENT_GENERATIONS = 5
"""In a row, before a run is ended."""


class JudgementReward:
    """The one reward function that GRPO is given; its parts are logged by name.

    Args:
        aggregate: makes one number of the parts.
        proxy: None leaves the proxy out.

    Raises:
        ProxySilent: the proxy, though asked, gave no opinion in five calls in a row.
    """

    __name__ = "judgement"

    def __init__(self, aggregate: Aggregate, proxy: AsksProxy | None = None) -> None:
        self.aggregate, self.proxy = aggregate, proxy
        self._silent = 0

    def __call__(
        self,
        prompts: list[Any],
        completions: list[Any],
        task: list[Task],
        log_metric: Callable[[str, float], None],
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **_: Any,
    ) -> list[float]:
        """One total a rollout."""
        texts = [_text(completion) for completion in completions]
        opinions = asyncio.run(self._opinions(texts, task)) if self.proxy else [None] * len(texts)
        parts = [
            components(text, t.labeled.label, opinion, t.begins_with)
            for text, t, opinion in zip(texts, task, opinions, strict=True)
        ]
        known = [p.proxy for p in parts if p.proxy is not None]
        log_metric("rewards/accuracy/mean", _mean([p.accuracy for p in parts]))
        log_metric("rewards/format/mean", _mean([p.format for p in parts]))
        log_metric("unreadable", _mean([1.0 - p.format for p in parts]))
        if self.proxy is not None:
            log_metric("proxy_abstained", 1.0 - len(known) / len(parts))
            if known:
                log_metric("rewards/proxy/mean", _mean(known))
            self._heard(asked=sum(rubric_of(t) is not None for t in texts), answered=len(known))
        return [self.aggregate(p) for p in parts]

    def _heard(self, asked: int, answered: int) -> None:
        """Ends a run whose proxy is gone: it would go on for hours without its reward."""
        if asked:
            self._silent = 0 if answered else self._silent + 1
        if self._silent >= _SILENT_GENERATIONS:
            raise ProxySilent(
                f"the proxy answered nothing in {_SILENT_GENERATIONS} generations: look whether "
                "the service at proxy_url is up and its release has a proxy, then start the job "
                "again: it goes on from its last checkpoint"
            )

    async def _opinions(self, texts: list[str], tasks: list[Task]) -> list[Opinion | None]:
        assert self.proxy is not None
        rubrics = [rubric_of(text) for text in texts]
        asked = [
            (task.labeled.comparison, rubric)
            for task, rubric in zip(tasks, rubrics, strict=True)
            if rubric is not None
        ]
        answers = iter(await self.proxy.opinions(asked))
        return [next(answers) if rubric is not None else None for rubric in rubrics]


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[0]["content"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
