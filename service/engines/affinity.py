"""Which of several replicas gets a request: the one that has read its pictures before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from models.prompts import FilledPrompt

Replica = TypeVar("Replica")

_SPARE_LOAD = 8
_MOST_LOAD = 1.25


def prefix_key(prompt: FilledPrompt) -> str:
    """What requests share that can reuse each other's work: the pictures, or else all of the text.

    Instructions come before them and are the same for everybody.
    """
    if prompt.images:
        return "\0".join(image.identity for image in prompt.images)
    return "\0".join((prompt.system, *(part for part in prompt.user if isinstance(part, str))))


def ranked(key: str, replicas: Iterable[Replica], name: Callable[[Replica], str]) -> list[Replica]:
    """The replicas in the order in which this key prefers them (rendezvous hashing).

    When one comes or goes, only the keys that prefer it move.
    """

    def weight(replica: Replica) -> bytes:
        return hashlib.blake2b(f"{name(replica)}\0{key}".encode(), digest_size=8).digest()

    return sorted(replicas, key=weight, reverse=True)


def overloaded(load: int, loads: Collection[int]) -> bool:
    """Whether a replica has so much more to do than the others that affinity costs too much.

    As in consistent hashing with bounded loads (arXiv 1608.01350): a picture that everybody asks
    about must not queue in one place while others are idle.
    """
    return load > _SPARE_LOAD + _MOST_LOAD * sum(loads) / len(loads)
