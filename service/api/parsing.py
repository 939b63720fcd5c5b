"""JSON texts to requests, without keeping anybody else waiting.

What may take long is read in a child process: a text of some megabytes, or one of so many parts
that taking it apart, or listing what is wrong with it, would hold up everybody's requests. There
it is also held to memory and CPU time: some texts take a hundred times their own length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.api.errors import Faults, RequestInvalid, faults_of
from service.errors import InvalidRequest, PayloadTooLarge
from service.process_pool import ProcessPool, Refused, TaskFailed

Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")

_LIGHT_BYTES = 2 * 2**20
_LIGHT_PARTS = 5000
_PARTED_BY = (b",", b"[", b"{", b"\\u00")
"""The last: JSON inside a text, as dialects have it, can spell the others."""


async def parsed(pool: ProcessPool, model: type[Model], text: bytes) -> Model:
    """A JSON text as a request, in a child process if it may take long.

    Raises:
        RequestInvalid: it is no JSON or does not fit the schema.
        PayloadTooLarge: reading it takes more than a child process may.
    """
    return await read_by(pool, model.model_validate_json, text)


async def read_by(pool: ProcessPool, reader: Callable[[bytes], Result], text: bytes) -> Result:
    """What a reader makes of a JSON text, in a child process if that may take long.

    Args:
        pool: of the child processes.
        reader: can be pickled; raises `ValidationError`, or `Refused` with a reason.
        text: not checked yet.

    Raises:
        RequestInvalid, InvalidRequest: as the reader says.
        PayloadTooLarge: reading it takes more than a child process may.
    """
    try:
        found = _read(reader, text) if _is_light(text) else await pool.run(_read, reader, text)
    except Refused as refused:
        raise InvalidRequest(str(refused)) from None
    except TaskFailed:
        raise PayloadTooLarge("reading this takes more memory or time than it may") from None
    if isinstance(found, Faults):
        raise RequestInvalid(found)
    return found


def _is_light(text: bytes) -> bool:
    if len(text) > _LIGHT_BYTES:
        return False
    return sum(text.count(mark) for mark in _PARTED_BY) <= _LIGHT_PARTS


def _read(reader: Callable[[bytes], Result], text: bytes) -> Result | Faults:
    try:
        return reader(text)
    except ValidationError as error:
        return faults_of(error)
