"""The contract between those who ask for an opinion on a rubric and those who have one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, SecretStr

from models.comparison import Comparison
from models.release import Release
from models.rubric import Rubric
from service.engines import Engine, Priority
from service.judging import Judge, Opinion


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the gateway lends to its evaluators.

    Attributes:
        proxy: the engine of the release's proxy; None where it has none.
    """

    release: Release
    judge: Judge
    proxy: Engine | None


class EvaluatorInvalid(ValueError):
    """An evaluator cannot be set up as the settings say; the message says why."""


class EvaluatorConfig(BaseModel):
    """An evaluator's own settings; a kind that has some derives its `Config` from this.

    Attributes:
        api_key: from the environment alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key: SecretStr | None = None


class Evaluator(ABC):
    """Judges a comparison by a rubric that it is given, and by nothing else.

    Timeouts, retries, how many are asked at once and what happens while it is down are its
    caller's: see `service.evaluators.guard`. It must not block the event loop.
    """

    Config: ClassVar[type[EvaluatorConfig]] = EvaluatorConfig

    @classmethod
    @abstractmethod
    def build(cls, config: EvaluatorConfig, around: Surroundings) -> Self:
        """One with these settings.

        Args:
            config: an instance of the class's own `Config`.
            around: what the gateway has to lend.

        Raises:
            EvaluatorInvalid: it cannot work with them; the gateway does not start.
        """

    @abstractmethod
    async def evaluate(
        self, comparison: Comparison, rubric: Rubric, priority: Priority = "interactive"
    ) -> Opinion:
        """Reads the responses in the given order; cancelling the call stops the work.

        An output that cannot be read is an abstention, never a verdict. All texts are as their
        authors sent them: what a response contains must not be able to speak as the evaluator.

        Args:
            comparison: its pictures are decoded and inside the release's pixel limit.
            rubric: the criteria; a justification that was written with them is not in it.
            priority: among the requests of its engine.

        Raises:
            EngineUnavailable: it cannot be asked now, and is asked again at once if the settings
                allow. Any other error says that asking again is of no use.
            ContextExceeded: comparison and rubric do not fit it.
        """

    async def close(self) -> None:
        """Gives back what it holds."""
        return
