"""What watches a run: complete checkpoints, live progress, early stop, curves."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.training.curves import draw_curves
from models.training.recipe import Watch

COMPLETE = "complete"
"""The file that marks a checkpoint as whole: a kill may come while one is being written."""


class MarkComplete(TrainerCallback):
    """Marks each checkpoint once everything of it is on disk."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called after the trainer has written a checkpoint."""
        PartialState().wait_for_everyone()  # each process writes a part of it
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            (folder / COMPLETE).touch()


def last_complete_checkpoint(run: Path) -> Path | None:
    """The checkpoint with the highest step that was written to its end."""
    found = [p.parent for p in run.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


class StopWhenDiverged(TrainerCallback):
    """Stops when the loss has run away from the best it has been, or is not a number.

    Attributes:
        reason: why the run was stopped; None while it was not.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.reason: str | None = None
        self._lowest = math.inf
        self._bad = 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Reads the loss of each log line."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            self._stop(control, f"the loss is {loss} at step {state.global_step}")
            return
        # A policy gradient's loss is around zero: only a real distance counts as running away.
        limit = max(self._lowest * self.watch.diverged_above, self._lowest + 0.5)
        self._bad = self._bad + 1 if loss > limit else 0
        control.should_save = control.should_save and not self._bad
        self._lowest = min(self._lowest, loss)
        if self._bad >= self.watch.patience_steps:
            self._stop(
                control,
                f"the loss is {loss:.3g} at step {state.global_step}, was {self._lowest:.3g}: "
                "lower the learning rate, or raise watch.diverged_above",
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keeps a run that is running away from replacing its last good checkpoint."""
        control.should_save = control.should_save and not self._bad

    def _stop(self, control: TrainerControl, reason: str) -> None:
        self.reason = reason
        control.should_training_stop = True
        control.should_save = False


class ShowProgress(TrainerCallback):
    """A bar on a terminal; elsewhere a line for each log."""

    def __init__(self, title: str) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._began = time.monotonic()
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Starts the bar where a resumed run goes on."""
        self._began, self._first_step = time.monotonic(), state.global_step
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=state.max_steps, completed=state.global_step, figures=""
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Shows the figures of a log line."""
        figures = " ".join(
            f"{name} {value:.4g}"
            for name, value in (logs or {}).items()
            if isinstance(value, float) and name in _SHOWN
        )
        if not figures:
            return
        self._bar.update(self._task, figures=figures)
        if not self._console.is_terminal:
            steps = max(1, state.global_step - self._first_step)
            pace = (time.monotonic() - self._began) / steps
            left = pace * (state.max_steps - state.global_step) / 60
            self._console.print(
                f"step {state.global_step}/{state.max_steps} {figures} "
                f"({pace:.2f} s a step, {left:.0f} min left)",
                soft_wrap=True,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Takes the bar down."""
        self._bar.stop()


_SHOWN = {
    "loss",
    "token_accuracy",
    "label_accuracy",
    "probe_loss",
    "hint_accuracy",
    "way_accuracy",
    "reward",
    "kl",
    "rewards/accuracy/mean",
    "rewards/proxy/mean",
    "rewards/format/mean",
}


class KeepCurves(TrainerCallback):
    """Writes ``history.jsonl`` and ``curves.png`` at every checkpoint and at the end."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called with each checkpoint."""
        self._write(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called once at the end."""
        self._write(args, state)

    def _write(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        run = Path(str(args.output_dir))
        lines = [json.dumps(entry) for entry in state.log_history]
        (run / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        draw_curves(state.log_history, run / "curves.png")
