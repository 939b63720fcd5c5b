"""Errors that a caller of the service can be told about.

    ServiceError
    ├── InvalidRequest      the request itself is wrong
    ├── ImageRejected       a picture is not one that can be judged
    ├── ContextExceeded     the comparison does not fit the model
    ├── PayloadTooLarge     more bytes or characters than are read
    ├── Unauthenticated     no key, or not one for this
    ├── RateLimited         the key has asked for as much as it may
    ├── NotFound            something that is named does not exist
    ├── ReleaseChanged      the release that is to go on judging is not served any more
    ├── Overloaded          no room in the queue; come back later
    ├── Draining            this process is stopping
    ├── EngineUnavailable   the engine is starting, gone or failed on this request
    ├── StoreUnavailable    what jobs are kept in is gone or full
    ├── DeadlineExceeded    no judgement within the caller's time
    └── Abstained           no verdict, for who takes numbers alone

Messages are for the caller: no path, no library's text, no stack. The status
that each becomes on HTTP is in ``service.api.errors`` alone.
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """Base of all of them.

    Attributes:
        code: the stable name that clients dispatch on.
        retry_after_s: when it is worth asking again; None when the same request cannot succeed.
    """

    code: ClassVar[str]
    retry_after_s: int | None = None

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class InvalidRequest(ServiceError):
    """The request itself is wrong."""

    code = "invalid_request"


class ImageRejected(ServiceError):
    """A picture is not one that can be judged."""

    code = "image_rejected"


class ContextExceeded(ServiceError):
    """The comparison does not fit the model."""

    code = "context_exceeded"


class PayloadTooLarge(ServiceError):
    """More bytes or characters than are read."""

    code = "payload_too_large"


class NotFound(ServiceError):
    """Something that is named does not exist."""

    code = "not_found"


class ReleaseChanged(ServiceError):
    """A run, or a fingerprint, is bound to a release that is not served here any more."""

    code = "release_changed"


class Unauthenticated(ServiceError):
    """No key came, or one that does not reach this."""

    code = "unauthenticated"


class RateLimited(ServiceError):
    """The key has asked for as much as it may."""

    code = "rate_limited"
    retry_after_s = 1


class Overloaded(ServiceError):
    """No room in the queue."""

    code = "overloaded"
    retry_after_s = 1


class Draining(ServiceError):
    """This process is stopping and takes nothing new."""

    code = "draining"
    retry_after_s = 5


class EngineUnavailable(ServiceError):
    """The engine is starting, gone, or failed on this request."""

    code = "engine_unavailable"
    retry_after_s = 5


class StoreUnavailable(ServiceError):
    """What jobs and rubrics are kept in is gone or full. Other judgements do not depend on it."""

    code = "store_unavailable"
    retry_after_s = 5


class DeadlineExceeded(ServiceError):
    """No judgement within the caller's time."""

    code = "deadline_exceeded"


class Abstained(ServiceError):
    """There is no verdict, and whoever asked takes numbers alone: see `service.api.dialects`."""

    code = "abstained"
