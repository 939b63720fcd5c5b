"""What generates tokens, behind one small contract."""

from service.engines.contract import (
    Engine,
    EngineState,
    Generation,
    GenerationRequest,
    LabelLogprobs,
    Priority,
)

__all__ = [
    "Engine",
    "EngineState",
    "Generation",
    "GenerationRequest",
    "LabelLogprobs",
    "Priority",
]
