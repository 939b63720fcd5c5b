"""Questions and responses out of rendered prompts and chat messages."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Annotated, Self

from pydantic import BeforeValidator, FailFast, TypeAdapter, ValidationError, model_validator

from service.api.dialects.contract import Foreign, MaybePicture
from service.api.errors import faults_of
from service.images import GivenImage
from service.process_pool import Refused

_ASSISTANT = re.compile(
    r"<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n\n"
)
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")
_TAIL = 64
"""Characters that are looked at for what ends a text: longer than any mark."""


class _Part(Foreign):
    type: str
    text: str = ""
    image: MaybePicture = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.type == "text" and "text" not in self.model_fields_set:
            raise ValueError("a part of type text has none")
        return self


def _in_parts(content: object) -> object:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class _Turn(Foreign):
    """One message. What is wrong is told once: there may be millions of what is no message."""

    role: str
    content: Annotated[tuple[_Part, ...], FailFast(), BeforeValidator(_in_parts)] = ()


_MESSAGES = TypeAdapter(Annotated[tuple[_Turn, ...], FailFast()])


def response_in(query: str, prompt: str) -> str:
    """What the model said, without the marks that end it; it may be nothing.

    Turns that the model began itself are part of it: what it wrote before them must not be hidden
    from the judge.

    Raises:
        Refused: it cannot be told from the prompt.
    """
    if prompt and query.startswith(prompt):
        return _without_ends(query[len(prompt) :])
    # Pictures take more room in the query than in the prompt, but the turns are the same.
    turn = next(islice(_ASSISTANT.finditer(query), _turns_before(prompt), None), None)
    if turn is None:
        raise Refused("query: neither its prompt nor the assistant's turn after it is in it")
    return _without_ends(query[turn.end() :])


def _turns_before(prompt: str) -> int:
    """How often an assistant's turn is begun before the one in which the response stands."""
    messages = _messages(prompt)
    if messages is None:
        *_, after = parts = _ASSISTANT.split(prompt)
        is_open = len(parts) > 1 and not any(mark in after for mark in _ENDS)
        return len(parts) - 1 - is_open
    roles = [turn.role for turn in messages]
    quoted = sum(len(_ASSISTANT.findall(part.text)) for turn in messages for part in turn.content)
    is_open = roles[-1:] == ["assistant"]  # the model went on with what was begun for it
    return roles.count("assistant") - is_open + quoted


def _without_ends(text: str) -> str:
    """By short tails: a text may end with as many marks and blanks as it has characters."""
    end = len(text)
    while True:
        tail = text[max(0, end - _TAIL) : end]
        left = tail.rstrip()
        for mark in _ENDS:
            left = left.removesuffix(mark)
        if len(left) == len(tail):
            return text[:end].lstrip()
        end -= len(tail) - len(left)


def asked_in(prompt: str) -> tuple[str, tuple[GivenImage, ...]]:
    """The question and the pictures of a prompt: a JSON text of messages, or the bare question.

    Raises:
        Refused: messages without a question, or with pictures that are files; no messages.
    """
    messages = _messages(prompt)
    if messages is None:
        return prompt, ()
    parts = [part for turn in messages if turn.role == "user" for part in turn.content]
    question = "\n".join(part.text for part in parts if part.type == "text")
    if not question.strip():
        raise Refused("prompts: there is no question in the messages")
    images = [part.image for part in parts if part.type == "image" and part.image is not None]
    return question, tuple(image.given() for image in images)


def _messages(prompt: str) -> tuple[_Turn, ...] | None:
    """Those of a JSON text of messages; None: it is another text.

    Raises:
        Refused: it is a list of something else.
    """
    if not prompt.lstrip().startswith("["):
        return None
    try:
        json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    try:
        return _MESSAGES.validate_json(prompt)
    except ValidationError as error:
        fault = faults_of(error).first[0]
        where = f"{fault.field}: " if fault.field else ""
        raise Refused(f"prompts: these are no messages: {where}{fault.problem}") from None
