"""Calibration: making a judge's probabilities mean what they say, per depth and order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.benchmarks.statistics import auroc, expected_calibration_error
from models.benchmarks.toyworld import Judged
from models.calibration import Order, OrderCalibration, Platt
from models.comparison import Position, other
from models.training.platt import Outcome, fit_platt


def outcomes_of(judged: Sequence[Judged], order: Order) -> list[Outcome]:
    """The readable passes in one order, each seen from the response that was read first."""
    found: list[Outcome] = []
    for one in judged:
        for verdict in one.judgement.verdicts:
            if verdict.order != order or verdict.probability is None:
                continue
            label: Position = one.case.label
            if order == "given":
                found.append(Outcome(verdict.probability, label == 1, verdict.surprisal))
            else:  # the service mirrors what was read swapped
                probability = 1 - verdict.probability
                found.append(Outcome(probability, other(label) == 1, verdict.surprisal))
    return found


def calibrate_depth(judged: Sequence[Judged]) -> tuple[OrderCalibration, dict[str, Any]]:
    """Fits both orders of one depth on labeled cases judged in both orders, uncalibrated.

    Returns:
        The scalings, fitted to all passes, and for each order expected calibration error and
        AUROC of confidence for being right, before and after. These are of every second pass, by
        a scaling fitted to the others.
    """
    fitted: dict[Order, Platt] = {}
    report: dict[str, Any] = {}
    for order in ("given", "swapped"):
        outcomes = outcomes_of(judged, order)
        fitted[order] = fit_platt(outcomes)
        platt, outcomes = fit_platt(outcomes[::2]), outcomes[1::2]
        report[order] = {
            "passes": len(outcomes),
            **_figures(outcomes, Platt(), "before"),
            **_figures(outcomes, platt, "after"),
        }
    return OrderCalibration(given=fitted["given"], swapped=fitted["swapped"]), report


def _figures(outcomes: Sequence[Outcome], platt: Platt, when: str) -> dict[str, float | None]:
    found = [platt.apply(o.probability, o.surprisal) for o in outcomes]
    sure = [max(p, 1 - p) for p in found]
    right = [(p >= 0.5) == o.first_is_better for p, o in zip(found, outcomes, strict=True)]
    figures = {"ece": expected_calibration_error(sure, right), "auroc": auroc(sure, right)}
    return {
        f"{name}_{when}": None if figure is None else round(figure, 4)
        for name, figure in figures.items()
    }
