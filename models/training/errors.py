"""Errors of the training jobs."""

from models.errors import ModelsError


class TrainingError(ModelsError):
    """Base of everything a job raises on purpose; the message says what to do."""


class RecipeInvalid(TrainingError):
    """A recipe cannot be used."""


class RunDiverged(TrainingError):
    """The loss ran away; the last good checkpoint is kept."""


class ServiceFailed(TrainingError):
    """The service that a job started did not start; the message names its log."""


class WorseThanBefore(TrainingError):
    """A release is worse than the one it was to replace, which stays."""


class ProxySilent(TrainingError):
    """The proxy of a run has stopped answering; the run goes on from its last checkpoint."""


class CheckpointUnusable(TrainingError):
    """A checkpoint does not hold the weights that the run needs."""
