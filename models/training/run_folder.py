"""One run's folder: whose it is, where to go on, and what came out.

recipe.json     what was asked for; another recipe needs another folder
checkpoint-N/   with a file ``complete`` once whole
history.jsonl curves.png logs/    figures, a picture of them, TensorBoard's events
model/          the result: written last and renamed into place, so it is whole or absent
run.json        steps, wall time over all starts, versions
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.training.callbacks import last_complete_checkpoint
from models.training.errors import RecipeInvalid, RunDiverged
from models.training.processes import is_first_process
from models.training.recipe import ExportRecipe, TrainRecipe

_OUTCOMES = ("checkpoint-*", "release", "calibration.json")
_NOT_ITS_OWN = {"run", "launch", "watch", "publish", "stages", "evaluation_cases"}


@dataclass(frozen=True)
class RunFolder:
    """A run's place on disk."""

    path: Path

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.path / "model"

    @property
    def is_finished(self) -> bool:
        """Whether the result is there."""
        return self.model.is_dir()

    def claim(self, recipe: TrainRecipe | ExportRecipe) -> None:
        """Takes the folder for a recipe, or finds that it is this recipe's already.

        How a run is launched, watched, measured and published does not make it another one, and
        where nothing has come of a run yet its recipe may be corrected. Of a run's processes the
        first alone writes.

        Raises:
            RecipeInvalid: another recipe's run is in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        said = recipe.model_dump(mode="json", exclude=_NOT_ITS_OWN)
        kept = self.path / "recipe.json"
        begun = self.is_finished or any(
            found for pattern in _OUTCOMES for found in self.path.glob(pattern)
        )
        if begun and kept.exists() and json.loads(kept.read_text("utf-8")) != said:
            raise RecipeInvalid(
                f"{self.path} holds a run of another recipe: choose another run folder "
                "(--set run=...), or remove it. To go on from its weights with other settings, "
                f"give one of its checkpoints as model: --set model={self.path}/checkpoint-N"
            )
        if is_first_process():
            _write(kept, said)

    def train(self, trainer: Any, stopped: Any) -> None:
        """Trains from the last whole checkpoint, if there is one.

        Raises:
            RunDiverged: the watch stopped it.
        """
        begun = time.monotonic()
        checkpoint = last_complete_checkpoint(self.path)
        if checkpoint is not None and is_first_process():
            print(f"going on from {checkpoint}", flush=True)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            if trainer.is_world_process_zero():
                self._account(time.monotonic() - begun, trainer.state.global_step)
        if stopped.reason is not None:
            raise RunDiverged(f"{self.path}: stopped, {stopped.reason}")

    def finish(self, trainer: Any) -> Path:
        """Saves the result; only then is the run finished."""
        partial = self.path / "model.partial"
        if trainer.is_world_process_zero():
            shutil.rmtree(partial, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(partial))
        if trainer.is_world_process_zero():
            for leftover in ("training_args.bin",):
                (partial / leftover).unlink(missing_ok=True)
            partial.rename(self.model)
        return self.model

    def _account(self, seconds: float, step: int) -> None:
        path = self.path / "run.json"
        known = json.loads(path.read_text("utf-8")) if path.exists() else {"starts": 0, "wall_s": 0}
        packages = ("torch", "transformers", "trl", "accelerate")
        known |= {
            "starts": known["starts"] + 1,
            "wall_s": round(known["wall_s"] + seconds, 1),
            "steps": step,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in packages},
        }
        _write(path, known)


def _write(path: Path, value: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)  # a kill leaves the one before
