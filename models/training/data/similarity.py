"""Pairs that are nearly the same as one kept before: near in their images and in their texts.

Many pairs about one image are wanted, and so is one question about many images;
only both together say the same thing twice.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from datasketch import MinHash, MinHashLSH
from pydantic import BaseModel, ConfigDict, Field

from models.training.data.drops import Drop, DropReason
from models.training.data.images import ImageRefused, Look
from models.training.data.records import PreferenceRecord

# Chinese, Japanese and Korean put no spaces: each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
_SHINGLE_WORDS = 3


class SimilarityOptions(BaseModel):
    """When two pairs are nearly the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_bits: int = Field(
        default=6, ge=0, le=64, description="most bits of the perceptual hashes that differ, of 64"
    )
    text_overlap: float = Field(
        default=0.8, gt=0, le=1, description="least share of word triples in common (Jaccard)"
    )
    permutations: int = Field(
        default=128, ge=16, le=1024, description="of MinHash: more estimate the overlap better"
    )


@dataclass(frozen=True, slots=True)
class _Known:
    id: str
    images: tuple[int, ...]
    text: MinHash
    responses: MinHash


class Similarity:
    """A filter that remembers what it has let through; the first of a kind stays."""

    def __init__(self, options: SimilarityOptions, look: Look) -> None:
        self._options = options
        self._look = look
        self._known: list[_Known] = []
        self._index = MinHashLSH(
            threshold=options.text_overlap,
            num_perm=options.permutations,
            weights=(0.2, 0.8),  # candidates are compared again: a missed one is worse
        )

    def check(self, record: PreferenceRecord) -> Drop | None:
        """Names the record that was kept instead. Swapping the responses changes nothing."""
        try:
            found = self._seen(record)
        except ImageRefused as cause:
            return Drop(id=record.id, reason=cause.reason, detail=str(cause))
        candidates = sorted(cast(list[int], self._index.query(found.text)))
        first = next((key for key in candidates if self._near(found, self._known[key])), None)
        if first is not None:
            same = self._known[first].id
            return Drop(id=record.id, reason=DropReason.NEAR_DUPLICATE, duplicate_of=same)
        self._index.insert(len(self._known), found.text)
        self._known.append(found)
        return None

    def _seen(self, record: PreferenceRecord) -> _Known:
        question = _shingles(record.question, "q")
        responses = {one for text in record.responses for one in _shingles(text, "r")}
        hashes = tuple(self._look(ref).phash for ref in record.images)
        return _Known(
            record.id, hashes, self._minhash(question | responses), self._minhash(responses)
        )

    def _near(self, one: _Known, two: _Known) -> bool:
        least = self._options.text_overlap
        return (
            len(one.images) == len(two.images)
            and all(
                (a ^ b).bit_count() <= self._options.image_bits
                for a, b in zip(one.images, two.images, strict=True)
            )
            and one.text.jaccard(two.text) >= least
            # Under a long question two short, opposite answers would not be seen.
            and one.responses.jaccard(two.responses) >= least
        )

    def _minhash(self, shingles: Iterable[str]) -> MinHash:
        minhash = MinHash(num_perm=self._options.permutations)
        minhash.update_batch([one.encode() for one in shingles])
        return minhash


def _shingles(text: str, kind: str) -> set[str]:
    """Each run of three words; a shorter text is one run, one without words is itself."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(plain) or [plain]
    last = max(1, len(words) - _SHINGLE_WORDS + 1)
    return {" ".join([kind, *words[at : at + _SHINGLE_WORDS]]) for at in range(last)}
