"""Lines of a batch or a job on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from proxy_grm_client.calls import BatchLine, call_body
from proxy_grm_client.errors import ImageRejected, InvalidRequest

Lines = Iterable[BatchLine] | Iterable[Mapping[str, Any]]


def own_id(line: Any) -> str | None:
    """The id that a line brings; a whole number is one too."""
    found = line.get("id") if isinstance(line, Mapping) else None
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    return found if isinstance(found, str) else None


def encoded(line: Any, options: Mapping[str, Any], wire_id: str) -> bytes:
    """A line as the service reads it.

    Args:
        line: what `Client.score` takes, by name.
        options: of a line that does not say otherwise, `timeout_s` among them.
        wire_id: by which its result will be known.

    Raises:
        InvalidRequest: it can never be judged.
        ImageRejected: a picture cannot be read.
    """
    body: dict[str, Any] = {**options, **_checked(line), "id": wire_id}
    question, responses, timeout_s = (
        body.pop(name) for name in ("question", "responses", "timeout_s")
    )
    try:
        images = body.pop("images", None)
        body = call_body(question, responses, () if images is None else images, body, timeout_s)
        return json.dumps(body).encode() + b"\n"
    except OSError as cause:
        raise ImageRejected(f"a picture cannot be read: {cause}") from cause
    except (TypeError, ValueError) as cause:
        raise InvalidRequest(str(cause)) from cause


def _checked(line: Any) -> dict[str, Any]:
    if not isinstance(line, Mapping):
        raise InvalidRequest(f"a line is a comparison's fields by name, not {type(line).__name__}")
    missing = [name for name in ("question", "responses") if name not in line]
    if missing:
        raise InvalidRequest(f"{', '.join(missing)}: this is required")
    if line.get("id") is not None and own_id(line) is None:
        raise InvalidRequest(f"id: a text or a whole number, not {type(line['id']).__name__}")
    return dict(line)
