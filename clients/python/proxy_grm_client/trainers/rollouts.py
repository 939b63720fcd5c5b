"""What a trainer hands over, in the service's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy_grm_client.images import Array, ImageLike


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response of the model that is trained.

    Attributes:
        reference: what it is compared with, where there is such a thing.
    """

    question: str
    response: str
    images: Sequence[ImageLike] = ()
    reference: str | None = None


def cohorts(rollouts: Sequence[Rollout]) -> list[list[int]]:
    """Indices of those that answer the same question about the same pictures."""
    asked: dict[str, list[list[int]]] = {}
    for index, rollout in enumerate(rollouts):
        found = asked.setdefault(rollout.question, [])
        for cohort in found:
            if _same_pictures(rollouts[cohort[0]].images, rollout.images):
                cohort.append(index)
                break
        else:
            found.append([index])
    return [cohort for found in asked.values() for cohort in found]


def question_of(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """What a prompt asks: the text, or what the user says in it.

    System messages tell the model how to answer and are left out; where user and assistant take
    turns, each line says who speaks.
    """
    if isinstance(prompt, str):
        return prompt
    said = [(turn["role"], text_of(turn)) for turn in prompt if turn["role"] != "system"]
    if all(role == "user" for role, _ in said):
        return "\n".join(text for _, text in said)
    return "\n".join(f"{role.capitalize()}: {text}" for role, text in said)


def response_of(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """What a completion says."""
    if isinstance(completion, str):
        return completion
    return "\n".join(text_of(turn) for turn in completion if turn["role"] == "assistant")


def text_of(turn: Mapping[str, Any]) -> str:
    """The text of a message, whose content is a text or a list of parts."""
    content = turn.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in _parts(content) if part.get("type") == "text")


def images_of(prompt: str | Sequence[Mapping[str, Any]]) -> list[ImageLike]:
    """The pictures that stand in a prompt itself."""
    if isinstance(prompt, str):
        return []
    contents = [turn.get("content") for turn in prompt]
    parts = [part for content in contents if isinstance(content, list) for part in _parts(content)]
    return [part["image"] for part in parts if part.get("image") is not None]


def as_images(value: Any) -> Sequence[ImageLike]:
    """A column's value as pictures: none, one, or several."""
    if value is None:
        return ()
    if isinstance(value, Array) and str(value.dtype) == "object":
        listed: Any = value
        return tuple(listed)  # a list, as data frames keep it
    return value if isinstance(value, (list, tuple)) else (value,)


def _parts(content: Iterable[Any]) -> list[Mapping[str, Any]]:
    return [part for part in content if isinstance(part, Mapping)]


def _same_pictures(some: Sequence[ImageLike], others: Sequence[ImageLike]) -> bool:
    return len(some) == len(others) and all(map(_same_picture, some, others))


def _same_picture(one: Any, other: Any) -> bool:
    """Pictures, arrays included, whose ``==`` may answer with an array."""
    if one is other:
        return True
    if type(one) is not type(other) or getattr(one, "shape", None) != getattr(other, "shape", None):
        return False
    equal = one == other
    return bool(equal.all()) if hasattr(equal, "all") else bool(equal)
