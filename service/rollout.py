"""Two releases behind one gateway, and runs that keep the one they began with.

A new release judges a share of the runs while the old one judges the rest. Rewards of two judges do
not mix: a run stays with the release that judged it first, also when that is replaced; then it ends
with an error instead of going on with another judge, unless whoever runs it says that it may.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from models.release import Release
from service.errors import NotFound, ReleaseChanged
from service.store import Store

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")
_POINTS = 2**64


@dataclass(frozen=True, slots=True)
class Wish:
    """What a call says about who is to judge it.

    Attributes:
        question: without a run, the same question goes to the same release: a cohort has one judge.
        run_id: the run that the call belongs to.
        release: name or fingerprint of the release that is wanted.
        may_change: the run may go on with another release than it began with.
    """

    question: str
    run_id: str | None = None
    release: str | None = None
    may_change: bool = False


class Rollout:
    """Chooses among the releases that a gateway serves.

    Args:
        releases: the first one, and the one beside it where there is one.
        percent: of the runs and questions that the second one gets.
        store: remembers what runs began with; while it does not answer, they are not held to it.
    """

    def __init__(self, releases: tuple[Release, ...], percent: float, store: Store) -> None:
        self._releases = releases
        self._percent = percent
        self._store = store

    async def choose(self, wish: Wish) -> Release:
        """The release that judges a call.

        Raises:
            NotFound: no release has the name that is wanted.
            ReleaseChanged: the fingerprint that is wanted, or what the run began with, is not
                served; or the run began with another release than is wanted.
        """
        named = self._named(wish.release) if wish.release is not None else None
        chosen = named or self._by_share(wish.run_id or wish.question)
        if wish.run_id is None:
            return chosen
        began = await self._store.release_of_run(
            wish.run_id, chosen.fingerprint, moved=wish.may_change
        )
        if began is None or began == chosen.fingerprint:
            return chosen
        kept = self._with_fingerprint(began)
        if kept is None or named is not None:
            raise ReleaseChanged(
                f"this run began with the release {began}, and this would be "
                f"{chosen.fingerprint}; begin another run, or say that it may change"
            )
        return kept

    def _named(self, wanted: str) -> Release:
        found = self._with_fingerprint(wanted) or next(
            (one for one in self._releases if one.config.name == wanted), None
        )
        if found is not None:
            return found
        if _FINGERPRINT.fullmatch(wanted):
            raise ReleaseChanged("no release with this fingerprint is served here (any more)")
        raise NotFound("no release of this name is served here; see GET /releases")

    def _with_fingerprint(self, fingerprint: str) -> Release | None:
        return next((one for one in self._releases if one.fingerprint == fingerprint), None)

    def _by_share(self, key: str) -> Release:
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        second = int.from_bytes(digest) * 100 < self._percent * _POINTS
        return self._releases[-1] if second else self._releases[0]

    def percent(self, release: Release) -> float:
        """The share of the runs and questions that a release gets."""
        if len(self._releases) == 1:
            return 100.0
        return self._percent if release is self._releases[-1] else 100.0 - self._percent
