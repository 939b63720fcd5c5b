"""Questions and responses out of rendered prompts and chat messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from service.api.dialects.contract import given_image
from service.errors import InvalidRequest
from service.images import GivenImage

_ASSISTANT = re.compile(
    r"<\|im_start\|>assistant\n|<\|start_header_id\|>assistant<\|end_header_id\|>\n\n"
)
_ENDS = re.compile(r"(?:<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|</s>|\s)+\Z")


def response_in(query: str, prompt: str) -> str:
    """What the model said, without the marks that end it; it may be nothing.

    Raises:
        InvalidRequest: it cannot be told from the prompt.
    """
    turns = [*_ASSISTANT.finditer(query)]
    if prompt and query.startswith(prompt):
        said = query[len(prompt) :]
    elif turns:  # pictures take more room in the query than in the prompt
        said = query[turns[-1].end() :]
    else:
        raise InvalidRequest("query: neither its prompt nor an assistant's turn is in it")
    return _ENDS.sub("", said).strip()


def asked_in(prompt: str) -> tuple[str, tuple[GivenImage, ...]]:
    """The question and the pictures of a prompt: a JSON text of messages, or the bare question.

    Raises:
        InvalidRequest: messages without a question, or with pictures that are files.
    """
    try:
        messages = json.loads(prompt)
    except (ValueError, RecursionError):
        return prompt, ()
    if not isinstance(messages, list):
        return prompt, ()
    parts = [part for turn in messages for part in _parts(turn)]
    question = "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")
    if not question.strip():
        raise InvalidRequest("prompts: there is no question in the messages")
    images = [part["image"] for part in parts if part.get("type") == "image" and part.get("image")]
    return question, tuple(given_image(image) for image in images)


def _parts(turn: Any) -> list[Mapping[str, Any]]:
    """The parts of what a user says."""
    if not isinstance(turn, Mapping) or turn.get("role") != "user":
        return []
    content = turn.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content or [] if isinstance(part, Mapping)]
