"""The ids that lines of batches and jobs give themselves."""

from __future__ import annotations

MOST_CHARACTERS = 128


def line_id(named: object) -> str | None:
    """What a line calls itself, where that is an id.

    JSON can spell half a surrogate pair, which no answer can carry.
    """
    if not isinstance(named, str) or not 0 < len(named) <= MOST_CHARACTERS:
        return None
    try:
        named.encode()
    except UnicodeEncodeError:
        return None
    return named
