"""What each arm of the experiment is worth, asked of it through a service, and the table of it.

Accuracy and readable answers are the judge's. *Transfer* is somebody else's: an evaluator's
accuracy under the rubric that the judge wrote for a case, minus its accuracy under another case's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.benchmarks.statistics import mean_interval, wilson_interval
from models.benchmarks.toyworld import Judged, Run, fresh_cases, judge_all
from models.benchmarks.transfer import Tried, try_rubrics
from models.toyworld import STRATA, ToyCase
from models.training.served import served

_CASES_SEED = 77
_CONCURRENCY = 64


def measure(run: Path, arm: str, seed: int, number: int) -> dict[str, Any]:
    """How each of so many fresh cases went with one arm's judge of one seed; kept beside it.

    Args:
        run: an export's, whose release has the judge, and as proxy whoever tries its rubrics.
        arm: its name.
        seed: other cases for each, the same ones for each arm.
        number: of cases.

    Raises:
        ModelsError: the service did not start.
    """
    kept = run / f"figures-{number}.json"
    if kept.exists():
        known: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return known
    cases = fresh_cases(number, _CASES_SEED + seed)
    with served(run / "release", run / "service") as url:
        judged, tried = asyncio.run(_judged_and_tried(cases, url, f"{arm}, seed {seed}"))
    found = {
        "arm": arm,
        "seed": str(seed),
        "n": len(judged),
        "right": [j.is_right for j in judged],
        "readable": [j.preferred is not None for j in judged],
        "strata": [j.case.stratum for j in judged],
        "own": [t.own == t.case.label for t in tried],
        "anothers": [t.anothers == t.case.label for t in tried],
    }
    kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found


async def _judged_and_tried(
    cases: Sequence[ToyCase], url: str, name: str
) -> tuple[list[Judged], list[Tried]]:
    judged = await judge_all(cases, url, Run(name), _CONCURRENCY)
    written = [j.judgement.rubric for j in judged]
    rubrics = [None if rubric is None else rubric.text for rubric in written]
    return judged, await try_rubrics(cases, rubrics, url, concurrency=_CONCURRENCY)


def pooled(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An arm's cases of all seeds as one."""
    lists = {
        key: [item for row in found for item in row[key]]
        for key in ("right", "readable", "strata", "own", "anothers")
    }
    total = sum(row["n"] for row in found)
    return {"arm": found[0]["arm"], "seed": "all", "n": total, **lists}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each arm and seed, shares in percent, 95% intervals over cases."""
    columns = ("arm", "seed", "n", "accuracy", *(f"{name}-decided" for name in STRATA))
    columns += ("transfer", *(f"transfer, {name}-decided" for name in STRATA), "readable")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in found:
        each = [None, *STRATA]
        cells = [
            *(str(row[key]) for key in ("arm", "seed", "n")),
            *(_share(_of_stratum(row, "right", name)) for name in each),
            *(_gain(row, name) for name in each),
            _share(row["readable"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(found: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Markdown: what an arm gains over another on the same cases, in points, 95% intervals."""
    lines = ["| arm | over | accuracy | transfer | readable |", "|---|---|---|---|---|"]
    for row, base in found:
        cells = [row["arm"], base["arm"]]
        for ours, theirs in (
            (row["right"], base["right"]),
            (_transfers(row), _transfers(base)),
            (row["readable"], base["readable"]),
        ):
            cells.append(_cell(*mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _transfers(row: dict[str, Any]) -> list[int]:
    """Of each case: 1, 0 or -1."""
    return [own - other for own, other in zip(row["own"], row["anothers"], strict=True)]


def _of_stratum(row: dict[str, Any], key: str, stratum: str | None) -> list[bool]:
    """All of them where no stratum is named."""
    pairs = zip(row[key], row["strata"], strict=True)
    return [item for item, of in pairs if stratum in (None, of)]


def _share(true: Sequence[bool]) -> str:
    """With its interval; empty of no cases."""
    if not true:
        return ""
    right = sum(true)
    return _cell(right / len(true), *wilson_interval(right, len(true)))


def _gain(row: dict[str, Any], stratum: str | None) -> str:
    """What the right rubric adds over another case's; empty of no cases."""
    own, others = (_of_stratum(row, key, stratum) for key in ("own", "anothers"))
    return _cell(*mean_interval([a - b for a, b in zip(own, others, strict=True)])) if own else ""


def _cell(*parts: float) -> str:
    value, low, high = (100 * part for part in parts)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"
