"""What a dialect is, and what all of them do in the same way."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from service.api.errors import RequestInvalid, faults_of
from service.api.gateway import Gateway
from service.errors import EngineUnavailable, InvalidRequest, Overloaded
from service.images import GivenImage

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")

_PAUSE_S = 1.0


class Foreign(BaseModel):
    """A request whose fields others decide: what is not known is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Dialect(ABC):
    """One public client's requests and answers.

    Attributes:
        path: where it posts.
    """

    path: ClassVar[str]

    def speaks(self, body: Mapping[str, Any]) -> bool:
        """Whether a request at this path is of this dialect."""
        return True

    def judgements(self, body: Mapping[str, Any]) -> int:
        """How many are asked for: one for each rollout, where there is a list of them."""
        rollouts = body.get("query")
        return max(1, len(rollouts)) if isinstance(rollouts, list) else 1

    @abstractmethod
    async def answer(self, gateway: Gateway, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer in the dialect's shape.

        Raises:
            Abstained: the dialect has numbers alone, and there is no judgement.
            ServiceError: any other; see `service.errors`.
        """


def read(model: type[Model], body: Mapping[str, Any]) -> Model:
    """A request in a dialect's shape.

    Raises:
        RequestInvalid: it is not.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RequestInvalid(faults_of(error)) from None


async def patiently(work: Callable[[float], Awaitable[Result]], within_s: float) -> Result:
    """Does the work, again where the queue is full or the engine away, while there is time.

    Public clients turn a refusal into a reward, so they are kept waiting instead.

    Args:
        work: given the seconds that are left.
        within_s: less than the client waits.

    Raises:
        ServiceError: of the last attempt.
    """
    ends = time.monotonic() + within_s
    while True:
        try:
            return await work(ends - time.monotonic())
        except (Overloaded, EngineUnavailable):
            if time.monotonic() + _PAUSE_S >= ends:
                raise
            await asyncio.sleep(_PAUSE_S)


def given_image(value: str | Mapping[str, Any]) -> GivenImage:
    """A picture as trainers send it: a URL, base64 or a data URI; or as `/score` takes it.

    Raises:
        InvalidRequest: a file's path, or something else.
    """
    if isinstance(value, Mapping):
        if len(value) != 1 or not value.keys() <= {"data", "url", "sha256"}:
            raise InvalidRequest("images: give one of data, url and sha256")
        return GivenImage(**{name: str(found) for name, found in value.items()})
    if value.startswith(("http://", "https://")):
        return GivenImage(url=value)
    if value.startswith("file:"):
        raise InvalidRequest("images: no files are read here; send base64")
    # Some write data:image;base64, without a type; the file itself says what it is.
    return GivenImage(data=value.partition(",")[2] if value.startswith("data:") else value)
