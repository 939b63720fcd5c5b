"""The contract between judging and whatever generates tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from models.errors import ModelsError
from models.prompts import FilledPrompt

Priority = Literal["interactive", "batch"]
EngineState = Literal["starting", "ready", "down", "stopped"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation.

    Attributes:
        prefill: the beginning of the answer, already written.
        max_tokens: upper bound on what is generated; less when the context ends first.
        grammar: regular expression the output is held to; None leaves it free.
        stop: texts that end the generation and stay in the output.
        read_labels: report the verdict token's log-probabilities.
        seed: makes sampling repeatable; without effect at temperature 0.
    """

    prompt: FilledPrompt
    max_tokens: int
    prefill: str = ""
    grammar: str | None = None
    stop: tuple[str, ...] = ()
    read_labels: bool = False
    temperature: float = 0.0
    seed: int = 0
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True)
class LabelLogprobs:
    """Log-probabilities (nats) of both labels at the verdict token, over the whole vocabulary."""

    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Generation:
    """What came out.

    Attributes:
        text: without the prefill, stop text included.
        truncated: it ended because no token was left, not because it was finished.
        cached_tokens: prompt tokens that the engine did not have to compute again.
        labels: None when not asked for, or when no label was generated.
        surprisal: the largest of a token before the verdict token, or of any where none was asked
            for, in nats: -log of its raw probability. None where there is no such token.
    """

    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    labels: LabelLogprobs | None = None
    surprisal: float | None = None


class Engine(ABC):
    """Generates tokens for many callers at once; batching them is its own affair.

    Attributes:
        refused: why it can never serve its release; None while there is hope.
    """

    refused: ModelsError | None = None

    @property
    @abstractmethod
    def state(self) -> EngineState:
        """Whether it would generate right now. ``ready`` means a forward pass was made."""

    @property
    @abstractmethod
    def running(self) -> int:
        """Generations that it has in work for this process."""

    @abstractmethod
    async def start(self) -> None:
        """Begins to become ready and returns at once."""

    @abstractmethod
    async def stop(self) -> None:
        """Ends it; running generations fail."""

    @abstractmethod
    async def generate(self, request: GenerationRequest) -> Generation:
        """Generates; cancelling the call stops the work in the engine too.

        Raises:
            EngineUnavailable: it is not ready, died meanwhile or failed on this request.
            ContextExceeded: the prompt leaves no room to answer.
        """
