from __future__ import annotations

import json

from models.training.tiny.experiment_figures import differences, measure, pooled, table


def row(seed, right, *, strata, own=None, anothers=None):
    n = len(right)
    return {
        "arm": "SFT",
        "seed": seed,
        "n": n,
        "right": right,
        "readable": [True] * n,
        "strata": strata,
        "own": own or [True] * n,
        "anothers": anothers or [True] * n,
    }


def cells(found):
    header, _, *lines = ([c.strip() for c in line.split("|")[1:-1]] for line in found.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_the_table_has_a_row_each_with_shares_by_stratum_and_intervals():
    (only,) = cells(
        table([row("0", [True, False, True, True], strata=["image"] * 2 + ["text"] * 2)])
    )
    assert (only["arm"], only["seed"], only["n"]) == ("SFT", "0", "4")
    assert only["accuracy"].startswith("75.0 (30.1 to 95.4")
    assert only["image-decided"].startswith("50.0 (")
    assert only["text-decided"].startswith("100.0 (")
    assert only["readable"].startswith("100.0 (")


def test_of_no_cases_there_is_no_figure():
    (only,) = cells(table([row("0", [True], strata=["image"])]))
    assert only["rubric-decided"] == only["transfer, rubric-decided"] == ""


def test_transfer_is_what_the_right_rubric_adds():
    own, anothers = [True, True, False, True], [False, True, False, False]
    found = row("0", [True] * 4, strata=["rubric"] * 3 + ["image"], own=own, anothers=anothers)
    (only,) = cells(table([found]))
    assert only["transfer"].startswith("50.0 (1.0 to 99.0")
    assert only["transfer, rubric-decided"].startswith("33.3 (")
    assert only["transfer, image-decided"].startswith("100.0 (")


def test_a_transfer_may_be_a_loss():
    found = row("0", [True], strata=["rubric"], own=[False], anothers=[True])
    assert cells(table([found]))[0]["transfer"] == "-100.0 (-100.0 to -100.0)"


def test_seeds_are_pooled_by_their_cases():
    both = [
        row("0", [True] * 3, strata=["image"] * 3),
        row("1", [False], strata=["rubric"], own=[False]),
    ]
    found = pooled(both)
    assert (found["arm"], found["seed"], found["n"]) == ("SFT", "all", 4)
    (only,) = cells(table([found]))
    assert only["accuracy"].startswith("75.0 (")
    assert only["rubric-decided"].startswith("0.0 (")
    assert only["transfer, rubric-decided"].startswith("-100.0 (")


def test_two_arms_are_compared_case_by_case():
    better = row("all", [True] * 4, strata=["image"] * 4, own=[True] * 4, anothers=[False] * 4)
    worse = row("all", [True, False] * 2, strata=["image"] * 4, own=[True] * 4, anothers=[True] * 4)
    (gain,) = cells(differences([(better | {"arm": "GRPO"}, worse)]))
    assert (gain["arm"], gain["over"]) == ("GRPO", "SFT")
    assert gain["accuracy"].startswith("50.0 (1.0 to 99.0")
    assert gain["transfer"] == "100.0 (100.0 to 100.0)"
    assert gain["readable"] == "0.0 (0.0 to 0.0)"


def test_what_was_measured_is_not_asked_again(tmp_path):
    known = row("3", [True], strata=["image"])
    (tmp_path / "figures-1.json").write_text(json.dumps(known))
    assert measure(tmp_path, "SFT", 3, 1) == known
