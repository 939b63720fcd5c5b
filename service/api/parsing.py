"""JSON texts to requests, without keeping anybody else waiting.

What may take long is read in a child process: a text of some megabytes, or one of so many parts
that taking it apart, or listing what is wrong with it, would hold up everybody's requests. There
it is also held to memory and CPU time: some texts take a hundred times their own length.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from service.api.errors import Faults, RequestInvalid, faults_of
from service.errors import PayloadTooLarge
from service.process_pool import ProcessPool, TaskFailed

Model = TypeVar("Model", bound=BaseModel)

_LIGHT_BYTES = 2 * 2**20
_LIGHT_PARTS = 5000


def parse(model: type[Model], text: bytes) -> Model:
    """A JSON text as a request.

    Raises:
        RequestInvalid: it is no JSON or does not fit the schema.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise RequestInvalid(faults_of(error)) from None


async def parsed(pool: ProcessPool, model: type[Model], text: bytes) -> Model:
    """The same, in a child process if it may take long.

    Raises:
        RequestInvalid: it is no JSON or does not fit the schema.
        PayloadTooLarge: reading it takes more than a child process may.
    """
    if _is_light(text):
        return parse(model, text)
    try:
        found = await pool.run(_read, model, text)
    except TaskFailed:
        raise PayloadTooLarge("reading this takes more memory or time than it may") from None
    if isinstance(found, Faults):
        raise RequestInvalid(found)
    return found


def _is_light(text: bytes) -> bool:
    if len(text) > _LIGHT_BYTES:
        return False
    return sum(text.count(mark) for mark in (b",", b"[", b"{")) <= _LIGHT_PARTS


def _read(model: type[Model], text: bytes) -> Model | Faults:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        return faults_of(error)
