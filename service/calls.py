"""Taking calls in: sizes, a place in the queue, the deadline, pictures, the given rubric."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from models.comparison import Comparison
from models.release import ReleaseConfig
from models.rubric import Rubric
from service.admission import Admission
from service.concurrency import together
from service.errors import DeadlineExceeded, InvalidRequest, NotFound, PayloadTooLarge
from service.images import GivenImage, Images
from service.judging import JudgingOptions, read_given_rubric
from service.metrics import Metrics
from service.settings import LimitSettings
from service.store import Store


@dataclass(frozen=True, slots=True)
class GivenRubric:
    """A rubric that came with the request: its text, or the id of one already seen."""

    text: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A comparison as it came in, pictures still encoded.

    Attributes:
        responses: two; more only where they are to be ranked.
        timeout_s: from its beginning until the answer, waiting included.
        run_id: whose counts its judgements join.
        evaluators: names of those who are to say what they make of it by the rubric alone.
        rubric_attempts: rubrics to try until they reach the verdict; None: as the settings say.
        began: when its text was here, by the monotonic clock; None: when it asks to be admitted.
    """

    question: str
    responses: tuple[str, ...]
    images: tuple[GivenImage, ...] = ()
    rubric: GivenRubric | None = None
    options: JudgingOptions = field(default_factory=JudgingOptions)
    timeout_s: float = 120.0
    use_cache: bool = True
    evaluators: tuple[str, ...] = ()
    run_id: str | None = None
    rubric_attempts: int | None = None
    began: float | None = None


@dataclass(slots=True)
class Timing:
    """Seconds spent in each stage."""

    queue_s: float = 0.0
    image_s: float = 0.0
    engine_s: float = 0.0
    total_s: float = 0.0
    began: float = field(default_factory=time.monotonic)


class Calls:
    """What every call goes through before a model is asked, whatever it asks for."""

    def __init__(
        self,
        config: ReleaseConfig,
        images: Images,
        store: Store,
        admission: Admission,
        metrics: Metrics,
        limits: LimitSettings,
    ) -> None:
        self._config = config
        self._images = images
        self._store = store
        self._admission = admission
        self._metrics = metrics
        self._limits = limits

    @asynccontextmanager
    async def admitted(self, call: Call) -> AsyncGenerator[Timing]:
        """Checks what costs nothing, then waits for a place; the deadline covers it all.

        Raises:
            InvalidRequest, PayloadTooLarge, Overloaded, Draining, DeadlineExceeded
        """
        check_sizes(call, self._config, self._limits)
        timing = Timing() if call.began is None else Timing(began=call.began)
        left_s = timing.began + call.timeout_s - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError
            async with (
                asyncio.timeout(left_s),
                self._admission.lease(call.options.priority, left_s) as queue_s,
            ):
                timing.queue_s = queue_s
                yield timing
        except TimeoutError:
            raise DeadlineExceeded(f"no judgement within {call.timeout_s:g} s") from None
        timing.total_s = time.monotonic() - timing.began
        for stage in ("queue", "image", "engine", "total"):
            self._metrics.stage_seconds.labels(stage).observe(getattr(timing, f"{stage}_s"))

    async def rubric(self, given: GivenRubric) -> Rubric:
        """The rubric that a call names or brings.

        Raises:
            NotFound: no rubric with that id is kept.
            StoreUnavailable: whether one is cannot be told now.
            InvalidRequest: the text is no rubric.
        """
        if given.text is not None:
            return read_given_rubric(given.text)
        rubric = await self._store.rubric(given.id or "")
        if rubric is None:
            raise NotFound("no rubric with this id is kept here; send its text")
        return rubric

    async def comparison(self, call: Call, timing: Timing) -> Comparison:
        """The comparison of a call's first two responses, its pictures decoded.

        Raises:
            ImageRejected: one of them cannot be judged.
        """
        began = time.monotonic()
        images = await together(self._images.image(image) for image in call.images)
        timing.image_s = time.monotonic() - began
        return Comparison(call.question, (call.responses[0], call.responses[1]), tuple(images))


def check_sizes(call: Call, config: ReleaseConfig, limits: LimitSettings) -> None:
    """Refuses what is larger than is read.

    Raises:
        InvalidRequest: more pictures than the release takes.
        PayloadTooLarge: a text is too long.
    """
    if len(call.images) > config.images.maximum:
        raise InvalidRequest(
            f"{len(call.images)} images; this release takes at most {config.images.maximum}"
        )
    given = call.rubric.text if call.rubric is not None else None
    texts = {"question": call.question, "rubric.text": given or ""}
    texts |= {f"responses[{n}]": text for n, text in enumerate(call.responses)}
    for name, text in texts.items():
        if len(text) > limits.text_characters:
            raise PayloadTooLarge(
                f"{name} has {len(text)} characters; at most {limits.text_characters} are read"
            )
