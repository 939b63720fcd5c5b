"""What can go wrong, one class a stable ``code``.

    ProxyGrmError
    ├── ServiceUnreachable   no answer came at all
    ├── UnexpectedAnswer     an answer that is not the service's
    ├── DemoRelease          a trainer would be rewarded by a demonstration
    ├── InvalidRequest       invalid_request
    ├── ImageRejected        image_rejected
    ├── ContextExceeded      context_exceeded
    ├── PayloadTooLarge      payload_too_large
    ├── Unauthenticated      unauthenticated
    ├── NotFound             not_found
    ├── ReleaseChanged       release_changed
    ├── RateLimited          rate_limited, retried
    ├── Overloaded           overloaded, retried
    ├── Draining             draining, retried
    ├── EngineUnavailable    engine_unavailable, retried
    ├── StoreUnavailable     store_unavailable, retried
    ├── DeadlineExceeded     deadline_exceeded
    └── Abstained            abstained, where another's dialect has no word for it

A judge that gives no verdict is not an error: that is a judgement with
``status == "abstain"``.
"""

from __future__ import annotations

from typing import ClassVar


class ProxyGrmError(Exception):
    """Base of all of them.

    Attributes:
        code: the service's stable name for it.
        request_id: what to look for in the service's logs; None when no answer came.
    """

    code: ClassVar[str] = "error"
    worth_retrying: ClassVar[bool] = False

    def __init__(self, detail: str, request_id: str | None = None) -> None:
        super().__init__(f"{detail} [{request_id}]" if request_id else detail)
        self.detail = detail
        self.request_id = request_id


class ServiceUnreachable(ProxyGrmError):
    """No answer came: refused, reset or timed out."""

    code = "service_unreachable"
    worth_retrying = True


class UnexpectedAnswer(ProxyGrmError):
    """Something answered that does not speak this contract, a proxy's error page for example."""

    code = "unexpected_answer"


class DemoRelease(ProxyGrmError):
    """The release that answered is a demonstration, and nobody said that this is meant."""

    code = "demo_release"


class InvalidRequest(ProxyGrmError):
    """The request itself is wrong."""

    code = "invalid_request"


class ImageRejected(ProxyGrmError):
    """A picture is damaged, too large, too small or of another format."""

    code = "image_rejected"


class ContextExceeded(ProxyGrmError):
    """The comparison does not fit the model."""

    code = "context_exceeded"


class PayloadTooLarge(ProxyGrmError):
    """More than the service reads."""

    code = "payload_too_large"


class Unauthenticated(ProxyGrmError):
    """The API key is missing or unknown."""

    code = "unauthenticated"


class NotFound(ProxyGrmError):
    """Something that was named does not exist there."""

    code = "not_found"


class ReleaseChanged(ProxyGrmError):
    """The release that began this run, or that was named, is not served there any more."""

    code = "release_changed"


class RateLimited(ProxyGrmError):
    """This key's quota is used up for the moment."""

    code = "rate_limited"
    worth_retrying = True


class Overloaded(ProxyGrmError):
    """The service's queue is full."""

    code = "overloaded"
    worth_retrying = True


class Draining(ProxyGrmError):
    """This gateway is stopping."""

    code = "draining"
    worth_retrying = True


class EngineUnavailable(ProxyGrmError):
    """The engine is starting or gone."""

    code = "engine_unavailable"
    worth_retrying = True


class StoreUnavailable(ProxyGrmError):
    """What jobs are kept in is gone or full."""

    code = "store_unavailable"
    worth_retrying = True


class DeadlineExceeded(ProxyGrmError):
    """No judgement within the given time."""

    code = "deadline_exceeded"


class Abstained(ProxyGrmError):
    """There is no verdict, and the dialect that was spoken takes numbers alone."""

    code = "abstained"


BY_CODE: dict[str, type[ProxyGrmError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        ImageRejected,
        ContextExceeded,
        PayloadTooLarge,
        Unauthenticated,
        NotFound,
        ReleaseChanged,
        RateLimited,
        Overloaded,
        Draining,
        EngineUnavailable,
        StoreUnavailable,
        DeadlineExceeded,
        Abstained,
    )
}
