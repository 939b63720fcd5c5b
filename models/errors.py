"""Errors of the judging domain.

    ModelsError
    ├── ReleaseInvalid      a release is incomplete or fails its start-up checks
    └── UnreadableJudgement a judge's output does not follow its grammar

They say what went wrong in domain words; which HTTP status that becomes is
decided in ``service.api.errors`` alone.
"""


class ModelsError(Exception):
    """Base of everything this package raises on purpose."""


class ReleaseInvalid(ModelsError):
    """A release cannot be used. The message says which file and what to change."""


class UnreadableJudgement(ModelsError):
    """A judge's output is not a judgement. Never a verdict, a tie or a 0."""
