from __future__ import annotations

import json
import math

import pytest
from PIL import Image
from transformers import TrainerControl, TrainerState, TrainingArguments

from models.training.callbacks import (
    COMPLETE,
    KeepCurves,
    MarkComplete,
    ShowProgress,
    StopWhenDiverged,
    last_complete_checkpoint,
)
from models.training.recipe import Watch


@pytest.fixture
def arguments(tmp_path):
    return TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")


def state(step, **others):
    return TrainerState(global_step=step, max_steps=10, **others)


# Checkpoints


def checkpoint(run, step, complete=True):
    folder = run / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half of it")
    if complete:
        (folder / COMPLETE).touch()
    return folder


def test_without_a_checkpoint_there_is_none_to_go_on_from(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    assert last_complete_checkpoint(tmp_path / "absent") is None


def test_the_last_checkpoint_is_the_one_with_the_highest_step(tmp_path):
    for step in (900, 1000, 20):
        checkpoint(tmp_path, step)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-1000"


def test_an_incomplete_checkpoint_is_never_gone_on_from(tmp_path):
    checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 20, complete=False)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_nothing_but_incomplete_checkpoints_is_a_fresh_start(tmp_path):
    checkpoint(tmp_path, 20, complete=False)
    assert last_complete_checkpoint(tmp_path) is None


def test_a_checkpoint_is_marked_after_it_was_written(tmp_path, arguments):
    folder = checkpoint(tmp_path, 20, complete=False)
    MarkComplete().on_save(arguments, state(20), TrainerControl())
    assert (folder / COMPLETE).exists()
    assert last_complete_checkpoint(tmp_path) == folder


def test_only_the_first_process_marks_a_checkpoint(tmp_path, arguments):
    checkpoint(tmp_path, 20, complete=False)
    MarkComplete().on_save(arguments, state(20, is_world_process_zero=False), TrainerControl())
    assert last_complete_checkpoint(tmp_path) is None


def test_a_checkpoint_that_was_not_written_is_not_marked(tmp_path, arguments):
    MarkComplete().on_save(arguments, state(20), TrainerControl())
    assert list(tmp_path.iterdir()) == []


# Divergence


def watch_losses(arguments, losses, watch):
    """The reason for which the run was stopped, and the step at which it was."""
    stop, control = StopWhenDiverged(watch), TrainerControl(should_save=True)
    for step, loss in enumerate(losses, start=1):
        stop.on_log(arguments, state(step), control, logs={"loss": loss})
        if stop.reason is not None:
            assert control.should_training_stop
            assert not control.should_save
            return stop.reason, step
    assert not control.should_training_stop
    return None, None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_run_at_once(arguments, loss):
    reason, step = watch_losses(arguments, [1.0, loss, 1.0], Watch(patience_steps=5))
    assert step == 2
    assert f"the loss is {loss} at step 2" in reason


def test_a_run_whose_first_loss_is_no_number_is_stopped(arguments):
    assert watch_losses(arguments, [math.nan], Watch())[1] == 1


def test_a_loss_that_ran_away_stops_the_run_when_patience_ends(arguments):
    watch = Watch(diverged_above=2.0, patience_steps=3)
    reason, step = watch_losses(arguments, [3.0, 1.0, 2.5, 2.6, 2.7, 9.0], watch)
    assert step == 5
    assert "the loss is 2.7 at step 5, was 1" in reason
    assert "learning rate" in reason


def test_a_loss_that_comes_back_gets_its_patience_back(arguments):
    watch = Watch(diverged_above=2.0, patience_steps=3)
    assert watch_losses(arguments, [1.0, 2.5, 2.5, 1.9] * 5, watch) == (None, None)


def test_a_rise_within_the_factor_is_no_divergence(arguments):
    watch = Watch(diverged_above=4.0, patience_steps=1)
    assert watch_losses(arguments, [1.0, 4.0, 3.9], watch) == (None, None)
    assert watch_losses(arguments, [1.0, 4.1], watch)[1] == 2


def test_a_loss_around_zero_has_not_run_away(arguments):
    watch = Watch(diverged_above=1.1, patience_steps=1)
    losses = [0.0, -0.02, 0.3, -0.1, 0.39, 1e-9]
    assert watch_losses(arguments, losses, watch) == (None, None)
    assert watch_losses(arguments, [*losses, 0.5], watch)[1] == 7


def test_a_falling_loss_is_never_stopped(arguments):
    watch = Watch(diverged_above=1.01, patience_steps=1)
    assert watch_losses(arguments, [10 / step for step in range(1, 50)], watch) == (None, None)


def test_log_lines_without_a_loss_are_passed_over(arguments):
    stop, control = StopWhenDiverged(Watch(patience_steps=1)), TrainerControl()
    for logs in (None, {}, {"train_loss": math.nan, "eval_loss": math.nan}):
        stop.on_log(arguments, state(1), control, logs=logs)
    assert stop.reason is None


def test_a_run_that_is_running_away_keeps_its_last_good_checkpoint(arguments):
    stop = StopWhenDiverged(Watch(diverged_above=2.0, patience_steps=3))
    saved = {}
    for step, loss in enumerate([1.0, 5.0, 5.0, 1.0], start=1):
        control = TrainerControl(should_save=True)  # the trainer asks for one at every step
        stop.on_step_end(arguments, state(step), control)
        stop.on_log(arguments, state(step), control, logs={"loss": loss})
        saved[step] = control.should_save
    assert stop.reason is None
    assert saved == {1: True, 2: False, 3: False, 4: False}
    control = TrainerControl(should_save=True)
    stop.on_step_end(arguments, state(5), control)
    assert control.should_save  # the loss has come back


def test_a_checkpoint_that_nobody_asked_for_is_not_written(arguments):
    stop, control = StopWhenDiverged(Watch()), TrainerControl(should_save=False)
    stop.on_log(arguments, state(1), control, logs={"loss": 1.0})
    stop.on_step_end(arguments, state(1), control)
    assert not control.should_save


# Progress


def test_away_from_a_terminal_each_log_is_a_line(arguments, capsys):
    show, control = ShowProgress("sft judge"), TrainerControl()
    show.on_train_begin(arguments, state(4), control)
    show.on_step_end(arguments, state(5), control)
    show.on_log(arguments, state(5), control, logs={"loss": 0.123456, "epoch": 0.5})
    show.on_log(arguments, state(5), control, logs={"train_runtime": 3.0})
    show.on_log(arguments, state(5), control, logs=None)
    show.on_train_end(arguments, state(5), control)
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("step 5/10 loss 0.1235 (")
    assert "s a step" in line


def test_a_log_before_the_first_step_of_a_resumed_run_has_a_pace(arguments, capsys):
    show, control = ShowProgress("x"), TrainerControl()
    show.on_train_begin(arguments, state(10), control)
    show.on_log(arguments, state(10), control, logs={"loss": 1.0})
    show.on_train_end(arguments, state(10), control)
    assert "0 min left" in capsys.readouterr().err


# Curves


def test_figures_and_their_picture_are_kept_at_checkpoints_and_at_the_end(tmp_path, arguments):
    keep, control = KeepCurves(), TrainerControl()
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    keep.on_save(arguments, state(1, log_history=history[:1]), control)
    assert (tmp_path / "history.jsonl").read_text() == '{"step": 1, "loss": 2.0}\n'
    keep.on_train_end(arguments, state(2, log_history=history), control)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        image.verify()


def test_a_run_without_figures_has_no_picture(tmp_path, arguments):
    KeepCurves().on_train_end(arguments, state(0), TrainerControl())
    assert not (tmp_path / "curves.png").exists()


def test_only_the_first_process_keeps_figures(tmp_path, arguments):
    other = state(1, log_history=[{"step": 1, "loss": 2.0}], is_world_process_zero=False)
    KeepCurves().on_save(arguments, other, TrainerControl())
    assert list(tmp_path.iterdir()) == []
