from __future__ import annotations

import json
import re

import pytest

from models.training.card import write_card
from models.training.recipe import ExportRecipe

METRICS = {
    "n": 2000,
    "accuracy": 0.8125,
    "accuracy_image_decided": 0.7,
    "accuracy_rubric_decided": None,
    "accuracy_text_decided": 1.0,
    "accuracy_heldout_combinations": 0.65,
    "verdict_depth_accuracy": 0.75,
    "blank_image_accuracy_image_decided": 0.5,
    "readable": 0.999,
    "order_consistent": 0.9,
    "ece": 0.0312,
    "auroc": None,
    "accuracy_at_80_coverage": 0.9,
    "accuracy_by_family": {"colour": 0.9, "count": 0.6},
    "accuracy_heldout_by_family": {"count": 0.5},
    "intervals_95": {"accuracy": [0.7948, 0.829], "accuracy_rubric_decided": [0.0, 1.0]},
    "fingerprint": "f",
}


@pytest.fixture
def folder(tmp_path):
    """A release that lacks its card: 3 MB of a judge, half a MB of a proxy."""
    for role, size in (("judge", 2_999_960), ("proxy", 500_000)):
        (tmp_path / "release" / role).mkdir(parents=True)
        (tmp_path / "release" / role / "model.safetensors").write_bytes(b"0" * size)
    return tmp_path / "release"


def recipe(tmp_path, **changes):
    return ExportRecipe.model_validate({
        "job": "export",
        "name": "small",
        "purpose": "demo",
        "base_model": "none: random weights",
        "judge": tmp_path / "judge",
        "prompts": tmp_path / "prompts",
        "run": tmp_path,
        "seed": 4,
    } | changes)  # fmt: skip


def stage(tmp_path, name, curves=True, **train):
    run = tmp_path / name
    run.mkdir()
    known = {"steps": 30, "wall_s": 600.0, "starts": 2, "versions": {"torch": "2.0", "trl": "1.1"}}
    (run / "run.json").write_text(json.dumps(known))
    (run / "recipe.json").write_text(json.dumps({"train": train}))
    if curves:
        (run / "curves.png").write_bytes(name.encode())
    return run


def card_of(folder):
    return (folder / "README.md").read_text("utf-8")


def test_each_role_has_a_row_with_its_size(tmp_path, folder):
    write_card(recipe(tmp_path), folder, None)
    card = card_of(folder)
    assert card.startswith("# small\n")
    assert "| judge | none: random weights | 3.0 MB |" in card
    assert "| proxy | none: random weights | 0.5 MB |" in card


def test_without_a_proxy_or_figures_or_stages_nothing_is_said_of_them(tmp_path, folder):
    (folder / "proxy" / "model.safetensors").unlink()
    (folder / "proxy").rmdir()
    write_card(recipe(tmp_path), folder, None)
    card = card_of(folder)
    assert "proxy" not in card
    assert "Measured" not in card
    assert "How it was made" not in card


@pytest.mark.parametrize(("purpose", "warned"), [("demo", True), ("production", False)])
def test_only_a_demo_warns_that_it_is_one(tmp_path, folder, purpose, warned):
    write_card(recipe(tmp_path, purpose=purpose), folder, None)
    assert ("For demonstration only" in card_of(folder)) is warned


def test_stages_are_listed_in_their_order_with_their_curves(tmp_path, folder):
    stages = (stage(tmp_path, "sft", seed=3), stage(tmp_path, "grpo", curves=False))
    write_card(recipe(tmp_path, stages=stages), folder, None)
    card = card_of(folder)
    assert "| sft | 30 | 3 | 10 | 2 | [curves](curves-sft.png) |" in card
    assert "| grpo | 30 |  | 10 | 2 |  |" in card
    assert card.index("| sft |") < card.index("| grpo |")
    assert "With torch 2.0, trl 1.1." in card
    assert (folder / "curves-sft.png").read_bytes() == b"sft"
    assert not (folder / "curves-grpo.png").exists()


def test_shares_come_with_their_intervals_and_unknown_ones_are_left_out(tmp_path, folder):
    write_card(recipe(tmp_path), folder, METRICS)
    card = card_of(folder)
    assert "On 2000 fresh drawn cases (seed 4)" in card
    assert "| accuracy | 81.2% (79.5% to 82.9%) |" in card
    assert "| — image-decided | 70.0% |" in card
    assert "rubric-decided" not in card
    assert "| expected calibration error | 0.031 |" in card
    assert "AUROC" not in card
    assert "| colour | 90.0% |  |" in card
    assert "| count | 60.0% | 50.0% |" in card
    assert "Calibration before" not in card


def test_calibration_is_told_from_the_runs_report(tmp_path, folder):
    report = {
        depth: {
            order: {"passes": 9, "ece_before": 0.2, "ece_after": 0.01}
            | {"auroc_before": 0.5, "auroc_after": 0.9}
            for order in orders
        }
        for depth, orders in {"full": ("given", "swapped"), "verdict": ("given",)}.items()
    }
    (tmp_path / "calibration.json").write_text(json.dumps(report))
    write_card(recipe(tmp_path), folder, METRICS)
    row = r"\| (full|verdict) \| (given|swapped) \| 0\.2 \| 0\.01 \| 0\.5 \| 0\.9 \|"
    rows = re.findall(row, card_of(folder))
    assert rows == [("full", "given"), ("full", "swapped"), ("verdict", "given")]


def test_writing_it_again_gives_the_same_card(tmp_path, folder):
    asked = recipe(tmp_path, stages=(stage(tmp_path, "sft"),))
    write_card(asked, folder, METRICS)
    first = card_of(folder)
    write_card(asked, folder, METRICS)
    assert card_of(folder) == first
    write_card(asked, folder, None)
    assert len(card_of(folder)) < len(first)


def test_every_table_has_as_many_cells_in_each_row(tmp_path, folder):
    write_card(recipe(tmp_path, stages=(stage(tmp_path, "sft"),)), folder, METRICS)
    for table in re.findall(r"(?:^\|.*\|\n)+", card_of(folder), re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1
