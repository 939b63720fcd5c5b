"""Which of two answers about an image is better, why, and how sure.

>>> from proxy_grm_client import Client
>>> with Client() as client:  # or Client("http://127.0.0.1:8000")
...     judgement = client.score(
...         "How many cats are there?", ["There is one.", "There are two."], images=["cat.jpg"]
...     )
>>> judgement.status
'ok'
>>> judgement.preferred in (1, 2), 0 <= judgement.probability <= 1
(True, True)
>>> [criterion.name for criterion in judgement.rubric.criteria]
['Accuracy', 'Relevance']

Names are imported on first use, so that a program that only might ask pays nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy_grm_client.answers import (
        Attempt,
        CheckedEvaluator,
        Compared,
        Criterion,
        EvaluatorVerdict,
        FailedLine,
        Gate,
        Heard,
        ImageReliance,
        JobAccepted,
        JobCounts,
        JobStatus,
        Judgement,
        LineResult,
        Panel,
        Ranked,
        Ranking,
        RankOpinion,
        RankPanel,
        Rate,
        Release,
        Rubric,
        RubricRecord,
        Run,
        Spent,
        Timing,
        Usage,
        Verdict,
        Verification,
        WrittenRubric,
    )
    from proxy_grm_client.async_client import AsyncClient
    from proxy_grm_client.client import Client
    from proxy_grm_client.errors import (
        Abstained,
        ContextExceeded,
        DeadlineExceeded,
        DemoRelease,
        Draining,
        EngineUnavailable,
        ImageRejected,
        InvalidRequest,
        NotFound,
        Overloaded,
        PayloadTooLarge,
        ProxyGrmError,
        RateLimited,
        ReleaseChanged,
        ServiceUnreachable,
        StoreUnavailable,
        Unauthenticated,
        UnexpectedAnswer,
    )
    from proxy_grm_client.images import ImageLike
    from proxy_grm_client.jobs import AsyncJobs, Jobs

__version__ = "0.1.0"

__all__ = [
    "Abstained",
    "AsyncClient",
    "AsyncJobs",
    "Attempt",
    "CheckedEvaluator",
    "Client",
    "Compared",
    "ContextExceeded",
    "Criterion",
    "DeadlineExceeded",
    "DemoRelease",
    "Draining",
    "EngineUnavailable",
    "EvaluatorVerdict",
    "FailedLine",
    "Gate",
    "Heard",
    "ImageLike",
    "ImageRejected",
    "ImageReliance",
    "InvalidRequest",
    "JobAccepted",
    "JobCounts",
    "JobStatus",
    "Jobs",
    "Judgement",
    "LineResult",
    "NotFound",
    "Overloaded",
    "Panel",
    "PayloadTooLarge",
    "ProxyGrmError",
    "RankOpinion",
    "RankPanel",
    "Ranked",
    "Ranking",
    "Rate",
    "RateLimited",
    "Release",
    "ReleaseChanged",
    "Rubric",
    "RubricRecord",
    "Run",
    "ServiceUnreachable",
    "Spent",
    "StoreUnavailable",
    "Timing",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Usage",
    "Verdict",
    "Verification",
    "WrittenRubric",
]
_MODULES = ("errors", "client", "async_client", "jobs", "images", "answers")


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it."""
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f"{__name__}.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
