"""Fresh toy-world cases, judged by a running service.

Five runs: cases like those of training in both orders, the same at verdict depth, cases with
combinations and phrasings that training never showed, and the image-decided ones with a blank
picture. Prints one JSON object as its last line.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from proxy_grm_client import AsyncClient, Judgement

from models.benchmarks.asking import ask_all, benchmark_parser, print_figures
from models.benchmarks.statistics import (
    accuracy_at_coverage,
    auroc,
    expected_calibration_error,
    wilson_interval,
)
from models.toyworld import CaseOptions, ToyCase, make_case
from models.toyworld.scene import SIDE


@dataclass(frozen=True, slots=True)
class Run:
    """How the service is asked in one run.

    Attributes:
        blank: an empty picture instead of the drawing.
    """

    title: str
    order: Literal["given", "both"] = "given"
    depth: Literal["full", "verdict"] = "full"
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A case and what the service said of it, read in the given order."""

    case: ToyCase
    judgement: Judgement

    @property
    def preferred(self) -> int | None:
        """The verdict; None for an abstention."""
        return self.judgement.verdicts[0].preferred

    @property
    def is_right(self) -> bool:
        """Whether the verdict is the label. An abstention is not."""
        return self.preferred == self.case.label

    @property
    def confidence(self) -> float:
        """Probability of the verdict that was given."""
        probability = self.judgement.verdicts[0].probability
        return 0.5 if probability is None else max(probability, 1 - probability)


def fresh_cases(number: int, seed: int, *, held_out: bool = False) -> list[ToyCase]:
    """Cases of seeds that training does not use."""
    rng = random.Random(f"benchmark/{seed}/{held_out}")
    return [make_case(rng, CaseOptions(held_out=held_out)) for _ in range(number)]


async def judge_all(
    cases: Sequence[ToyCase], url: str, run: Run, concurrency: int = 64
) -> list[Judged]:
    """Judges every case, `concurrency` at a time, and returns them in their order.

    Raises:
        ProxyGrmError: the service gave no judgement for one of them.
    """
    blank = Image.new("RGB", (SIDE, SIDE), (224, 224, 224))
    async with AsyncClient(url, timeout_s=600) as client:

        async def judge(case: ToyCase) -> Judged:
            judgement = await client.score(
                case.question,
                case.responses,
                [blank if run.blank else case.picture()],
                order=run.order,
                depth=run.depth,
                cache="bypass",
            )
            return Judged(case, judgement)

        return await ask_all(run.title, cases, judge, concurrency)


async def evaluate(url: str, number: int, seed: int, concurrency: int) -> dict[str, Any]:
    """All runs, summed up."""
    cases = fresh_cases(number, seed)
    held_out = fresh_cases(number, seed, held_out=True)
    looked_at = [case for case in cases if case.stratum == "image"]
    full = await judge_all(cases, url, Run("in distribution", order="both"), concurrency)
    return summary(
        full,
        await judge_all(held_out, url, Run("held out"), concurrency),
        await judge_all(cases, url, Run("verdict depth", depth="verdict"), concurrency),
        await judge_all(looked_at, url, Run("blank picture", blank=True), concurrency),
    )


def summary(
    full: Sequence[Judged],
    held_out: Sequence[Judged],
    verdict_depth: Sequence[Judged],
    blank: Sequence[Judged],
) -> dict[str, Any]:
    """The figures, shares of 1; an abstention counts as not right."""
    by_stratum = {s: [j for j in full if j.case.stratum == s] for s in ("image", "rubric", "text")}
    sure, right = [j.confidence for j in full], [j.is_right for j in full]
    return {
        "n": len(full),
        "accuracy": _share(full),
        "accuracy_image_decided": _share(by_stratum["image"]),
        "accuracy_rubric_decided": _share(by_stratum["rubric"]),
        "accuracy_heldout_combinations": _share(held_out),
        "readable": _mean([j.preferred is not None for j in full]),
        "order_consistent": _mean([j.judgement.order_consistent is True for j in full]),
        "ece": _rounded(expected_calibration_error(sure, right)),
        "verdict_depth_accuracy": _share(verdict_depth),
        "blank_image_accuracy_image_decided": _share(blank),
        "accuracy_text_decided": _share(by_stratum["text"]),
        "accuracy_by_family": _by_family(full),
        "accuracy_heldout_by_family": _by_family(held_out),
        "auroc": _rounded(auroc(sure, right)),
        "accuracy_at_80_coverage": _rounded(accuracy_at_coverage(sure, right)),
        "both_orders": _both_orders(full),
        "intervals_95": {
            "accuracy": _interval(full),
            "accuracy_image_decided": _interval(by_stratum["image"]),
            "accuracy_rubric_decided": _interval(by_stratum["rubric"]),
            "accuracy_heldout_combinations": _interval(held_out),
            "accuracy_text_decided": _interval(by_stratum["text"]),
            "verdict_depth_accuracy": _interval(verdict_depth),
            "blank_image_accuracy_image_decided": _interval(blank),
        },
        "completion_tokens": sum(j.judgement.usage.completion_tokens for j in full),
        "release": full[0].judgement.release.name,
        "fingerprint": full[0].judgement.release.fingerprint,
    }


def _both_orders(full: Sequence[Judged]) -> dict[str, Any]:
    """The same with the probability of both orders together."""
    known = [(j.judgement.probability, j.case.label) for j in full]
    certain = [(p, label) for p, label in known if p is not None]
    sure = [max(p, 1 - p) for p, _ in certain]
    right = [(p >= 0.5) == (label == 1) for p, label in certain]
    return {
        "accuracy": round(sum(right) / len(full), 4),
        "ece": _rounded(expected_calibration_error(sure, right)),
        "auroc": _rounded(auroc(sure, right)),
        "accuracy_at_80_coverage": _rounded(accuracy_at_coverage(sure, right)),
    }


def _by_family(judged: Sequence[Judged]) -> dict[str, float]:
    asked = Counter(j.case.family for j in judged)
    right = Counter(j.case.family for j in judged if j.is_right)
    return {family: round(right[family] / asked[family], 4) for family in sorted(asked)}


def _share(judged: Sequence[Judged]) -> float | None:
    return _mean([j.is_right for j in judged]) if judged else None


def _interval(judged: Sequence[Judged]) -> list[float]:
    return [round(x, 4) for x in wilson_interval(sum(j.is_right for j in judged), len(judged))]


def _mean(values: Sequence[bool]) -> float:
    return round(sum(values) / len(values), 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def main(argv: list[str] | None = None) -> int:
    """``python -m models.benchmarks.toyworld``."""
    prog = "python -m models.benchmarks.toyworld"
    options = benchmark_parser(
        prog,
        "Judge fresh drawn scenes through a running service and sum up.",
        f"{prog} --cases 2000 --seed 7",
    ).parse_args(argv)
    return print_figures(
        options.url,
        lambda: evaluate(options.url, options.cases, options.seed, options.concurrency),
    )


if __name__ == "__main__":
    sys.exit(main())
