from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from models.training.curves import draw_curves

LOGGED = [
    {"step": step, "loss": 3.0 / step, "learning_rate": 1e-3, "epoch": step / 4}
    for step in range(1, 5)
]
REWARDS = {
    "reward": 1.5,
    "rewards/accuracy/mean": 1.0,
    "rewards/proxy/mean": 0.0,
    "rewards/format/mean": 1.0,
    "completions/mean_length": 90.0,
    "unreadable": 0.0,
    "proxy_abstained": 0.25,
}


def drawn(path, rows):
    """Whether anything, a grid at least, is in the middle of each panel's place."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        pixels = np.asarray(image.convert("L"))
    high, wide = pixels.shape[0] // rows, pixels.shape[1] // 2
    places = [
        pixels[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        for row in range(rows)
        for column in range(2)
    ]
    middles = [place[high // 4 : -high // 4, wide // 4 : -wide // 4] for place in places]
    return [bool((middle < 255).any()) for middle in middles]


def test_a_picture_has_a_panel_for_each_kind_of_figure(tmp_path):
    draw_curves(LOGGED, tmp_path / "curves.png")
    assert drawn(tmp_path / "curves.png", rows=1) == [True, True]


def test_a_panel_without_figures_is_left_out(tmp_path):
    draw_curves([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], tmp_path / "curves.png")
    assert drawn(tmp_path / "curves.png", rows=1) == [True, False]


def test_more_figures_make_a_taller_picture(tmp_path):
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    draw_curves(LOGGED, few)
    draw_curves([entry | REWARDS for entry in LOGGED], many)
    # Loss, learning rate; and rewards, length, unreadable and abstained share.
    assert drawn(many, rows=3) == [True] * 6
    with Image.open(few) as one, Image.open(many) as three:
        assert three.width == one.width
        assert three.height == pytest.approx(3 * one.height, abs=3)


@pytest.mark.parametrize("name", REWARDS)
def test_every_figure_of_a_reward_is_drawn(tmp_path, name):
    draw_curves([{"step": 1, name: REWARDS[name]}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_figures_may_come_and_go(tmp_path):
    history = [{"step": 1, "loss": 1.0}, {"step": 1, "reward": 0.0}, {"step": 2}, {"epoch": 3.0}]
    draw_curves(history, tmp_path / "curves.png")
    assert drawn(tmp_path / "curves.png", rows=1) == [True, True]


def test_a_loss_that_is_no_number_is_drawn_as_a_gap(tmp_path):
    history = [{"step": step, "loss": loss} for step, loss in enumerate((1.0, math.nan, math.inf))]
    draw_curves(history, tmp_path / "curves.png")
    assert drawn(tmp_path / "curves.png", rows=1) == [True, False]


@pytest.mark.parametrize("history", [[], [{"step": 1}], [{"step": 1, "train_runtime": 2.0}]])
def test_nothing_to_draw_writes_nothing(tmp_path, history):
    draw_curves(history, tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw_leaves_an_older_picture(tmp_path):
    (tmp_path / "curves.png").write_bytes(b"older")
    draw_curves([], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == b"older"


def test_a_newer_picture_takes_the_place_of_an_older_one(tmp_path):
    (tmp_path / "curves.png").write_bytes(b"older")
    draw_curves(LOGGED, tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    assert drawn(tmp_path / "curves.png", rows=1) == [True, True]
