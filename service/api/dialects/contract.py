"""What a dialect is, and what all of them do in the same way."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.api.gateway import Gateway
from service.api.schemas import ImageIn
from service.calls import Call, check_sizes
from service.concurrency import together
from service.errors import DeadlineExceeded, EngineUnavailable, Overloaded

Asked = TypeVar("Asked")
Result = TypeVar("Result")

MOST_ROLLOUTS = 1024
_PAUSE_S = 1.0

Texts = Annotated[tuple[str, ...], Field(max_length=MOST_ROLLOUTS)]
"""One for each rollout."""


class Foreign(BaseModel):
    """A request whose fields others decide: what is not known is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _as_ours(value: object) -> object:
    """A picture as trainers send it, a URL, base64 or a data URI, as `/score` takes it."""
    if not isinstance(value, str):
        return value
    if value.startswith(("http://", "https://")):
        return {"url": value}
    if value.startswith("file:"):
        raise ValueError("no files are read here; send base64")
    # Some write data:image;base64, without a type; the file itself says what it is.
    return {"data": value.partition(",")[2] if value.startswith("data:") else value}


Picture = Annotated[ImageIn, BeforeValidator(_as_ours)]
MaybePicture = Annotated[
    Picture | None, BeforeValidator(lambda value: None if value == "" else value)
]


class Dialect(ABC, Generic[Asked]):
    """One public client's requests and answers.

    Attributes:
        path: where it posts.
    """

    path: ClassVar[str]

    def speaks(self, body: Mapping[str, Any]) -> bool:
        """Whether a request at this path is of this dialect."""
        return True

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> Asked:
        """What is asked. A long body is read in a child process: it and what it is must travel.

        Raises:
            ValidationError: it is no request of this dialect.
            Refused: the same, with a reason.
        """

    def judgements(self, asked: Asked) -> int:
        """How many are asked for."""
        return 1

    @abstractmethod
    async def answer(self, gateway: Gateway, asked: Asked) -> dict[str, Any]:
        """The answer in the dialect's shape.

        Raises:
            Abstained: the dialect has numbers alone, and there is no judgement.
            ServiceError: any other; see `service.errors`.
        """


async def patiently(
    gateway: Gateway,
    calls: Sequence[Call],
    judge: Callable[[Call], Awaitable[Result]],
    within_s: float,
) -> list[Result]:
    """What comes of all calls: as many at a time as are judged at all.

    Each is made again where the queue is full or the engine away, while there is time: public
    clients turn a refusal into a reward, so they are kept waiting instead.

    Args:
        gateway: that judges.
        calls: their own time does not matter.
        judge: given a call that has the seconds that are left.
        within_s: for all of them; less than the client waits.

    Raises:
        InvalidRequest, PayloadTooLarge: one is too large; none has been judged.
        ServiceError: of the last attempt at one.
    """
    for call in calls:
        check_sizes(call, gateway.release.config, gateway.settings.limits)
    places = asyncio.Semaphore(gateway.settings.admission.running)
    ends = time.monotonic() + within_s

    async def one(call: Call) -> Result:
        async with places:
            return await _again_and_again(call, judge, ends)

    return await together(one(call) for call in calls)


async def _again_and_again(
    call: Call, judge: Callable[[Call], Awaitable[Result]], ends: float
) -> Result:
    while (left_s := ends - time.monotonic()) > 0:
        try:
            return await judge(replace(call, timeout_s=left_s))
        except (Overloaded, EngineUnavailable):
            if time.monotonic() + _PAUSE_S >= ends:
                raise
            await asyncio.sleep(_PAUSE_S)
    raise DeadlineExceeded("not all of it was judged in the time for which this client waits")
