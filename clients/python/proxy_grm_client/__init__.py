"""Which of two answers about an image is better, why, and how sure.

>>> from proxy_grm_client import Client
>>> client = Client("http://127.0.0.1:8000")
>>> judgement = client.score(
...     "How many cats are there?", ["There is one.", "There are two."], images=["cat.jpg"]
... )
>>> judgement.preferred, judgement.probability
(1, 0.83)
"""

from proxy_grm_client.answers import (
    Criterion,
    EvaluatorVerdict,
    Judgement,
    Release,
    Rubric,
    Timing,
    Usage,
    Verdict,
    Verification,
    WrittenRubric,
)
from proxy_grm_client.client import AsyncClient, Client
from proxy_grm_client.errors import (
    ContextExceeded,
    DeadlineExceeded,
    Draining,
    EngineUnavailable,
    ImageRejected,
    InvalidRequest,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    ProxyGrmError,
    RateLimited,
    ServiceUnreachable,
    Unauthenticated,
    UnexpectedAnswer,
)
from proxy_grm_client.images import ImageLike

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "ContextExceeded",
    "Criterion",
    "DeadlineExceeded",
    "Draining",
    "EngineUnavailable",
    "EvaluatorVerdict",
    "ImageLike",
    "ImageRejected",
    "InvalidRequest",
    "Judgement",
    "NotFound",
    "Overloaded",
    "PayloadTooLarge",
    "ProxyGrmError",
    "RateLimited",
    "Release",
    "Rubric",
    "ServiceUnreachable",
    "Timing",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Usage",
    "Verdict",
    "Verification",
    "WrittenRubric",
]
