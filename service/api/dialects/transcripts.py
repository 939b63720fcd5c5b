"""Questions and responses out of rendered prompts and chat messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from service.api.dialects.contract import given_image
from service.errors import InvalidRequest
from service.images import GivenImage

_ASSISTANT = re.compile(
    r"<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n\n"
)
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")
_TAIL = 64
"""Characters that are looked at for what ends a text: longer than any mark."""


def response_in(query: str, prompt: str) -> str:
    """What the model said, without the marks that end it; it may be nothing.

    Turns that the model began itself are part of it: what it wrote before them must not be hidden
    from the judge.

    Raises:
        InvalidRequest: it cannot be told from the prompt.
    """
    if prompt and query.startswith(prompt):
        return _without_ends(query[len(prompt) :])
    # Pictures take more room in the query than in the prompt, but the turns are the same.
    turn = next(islice(_ASSISTANT.finditer(query), _turns_before(prompt), None), None)
    if turn is None:
        raise InvalidRequest("query: neither its prompt nor the assistant's turn after it is in it")
    return _without_ends(query[turn.end() :])


def _turns_before(prompt: str) -> int:
    """How often an assistant's turn is begun before the one in which the response stands."""
    messages = _messages(prompt)
    if messages is None:
        *_, after = parts = _ASSISTANT.split(prompt)
        is_open = len(parts) > 1 and not any(mark in after for mark in _ENDS)
        return len(parts) - 1 - is_open
    roles = [turn.get("role") for turn in messages if isinstance(turn, Mapping)]
    texts = [str(part.get("text")) for turn in messages for part in _parts(turn)]
    quoted = sum(len(_ASSISTANT.findall(text)) for text in texts)
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
        InvalidRequest: messages without a question, or with pictures that are files.
    """
    messages = _messages(prompt)
    if messages is None:
        return prompt, ()
    asked = [turn for turn in messages if isinstance(turn, Mapping) and turn.get("role") == "user"]
    parts = [part for turn in asked for part in _parts(turn)]
    question = "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")
    if not question.strip():
        raise InvalidRequest("prompts: there is no question in the messages")
    images = [part["image"] for part in parts if part.get("type") == "image" and part.get("image")]
    return question, tuple(given_image(image) for image in images)


def _messages(prompt: str) -> list[Any] | None:
    """Those of a JSON text of messages; None: it is another text."""
    try:
        messages = json.loads(prompt)
    except (ValueError, RecursionError):
        return None
    return messages if isinstance(messages, list) else None


def _parts(turn: Any) -> list[Mapping[str, Any]]:
    """The parts of what somebody says."""
    content = turn.get("content") if isinstance(turn, Mapping) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content or [] if isinstance(part, Mapping)]
