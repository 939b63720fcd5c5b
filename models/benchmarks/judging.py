"""What each way of judging gains and costs: the same fresh toy cases in every mode, in one table.

Every case is asked twice, with its responses as they are and the other way round: a judge without
position bias says the same. Prints the table, and one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy_grm_client import AsyncClient, InvalidRequest, Judgement, NotFound
from proxy_grm_client.calls import ScoreOptions

from models.benchmarks.asking import ask_all, benchmark_parser, print_figures, print_table
from models.benchmarks.statistics import auroc, wilson_interval
from models.benchmarks.toyworld import fresh_cases
from models.toyworld import STRATA, ToyCase

_UNDECIDED = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of judging.

    Attributes:
        panel: the verdict that counts is that of judge and evaluators together.
    """

    name: str
    options: ScoreOptions
    panel: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mode made of a case.

    Attributes:
        probability: P(the case's own response 1 is better); None for an abstention.
        tokens: that the engines read and wrote for it.
        calls: to the judge's engine.
    """

    probability: float | None
    tokens: int
    calls: int
    stopped: str


@dataclass(frozen=True, slots=True)
class AskedTwice:
    """A case and both answers; `turned` is the one to its responses the other way round."""

    case: ToyCase
    plain: Answer
    turned: Answer

    @property
    def both(self) -> tuple[float, float] | None:
        """Both probabilities, where neither answer is an abstention."""
        one, two = self.plain.probability, self.turned.probability
        return None if one is None or two is None else (one, two)

    @property
    def is_right(self) -> bool:
        """Whether the verdict is the label. An abstention is not."""
        p = self.plain.probability
        return p is not None and (p >= 0.5) == (self.case.label == 1)


def modes(temperature: float, evaluators: Sequence[str] = ()) -> list[Mode]:
    """All of them; the panel where there is somebody to ask."""
    found = [
        Mode("given", {}),
        Mode("both", {"order": "both"}),
        Mode("adaptive", {"order": "adaptive"}),
        Mode("escalate", {"order": "escalate"}),
        Mode("votes 4", {"votes": 4, "temperature": temperature}),
        Mode("both + votes 4", {"order": "both", "votes": 4, "temperature": temperature}),
        Mode("verdict depth", {"depth": "verdict"}),
    ]
    if evaluators:
        found.append(Mode("panel", {"evaluators": [*evaluators]}, panel=True))
    return found


async def ask(client: AsyncClient, case: ToyCase, mode: Mode, *, turned: bool = False) -> Answer:
    """Has a case judged in a mode.

    Args:
        client: of a running service.
        case: a fresh one.
        mode: how.
        turned: with its responses the other way round; the answer is about the case all the same.

    Raises:
        ProxyGrmError: the service gave no judgement.
    """
    responses = case.responses[::-1] if turned else case.responses
    options: ScoreOptions = {**mode.options, "cache": "bypass"}
    found = await client.score(case.question, responses, [case.picture()], **options)
    used = [found.usage, *(one.usage for one in found.evaluators)]
    p = _probability(found, panel=mode.panel)
    return Answer(
        probability=1 - p if turned and p is not None else p,
        tokens=sum(usage.prompt_tokens + usage.completion_tokens for usage in used),
        calls=found.usage.calls,
        stopped=found.stopped,
    )


def _probability(found: Judgement, *, panel: bool) -> float | None:
    if not panel:
        return found.probability
    return None if found.panel is None else found.panel.probability


async def ask_twice(
    client: AsyncClient, cases: Sequence[ToyCase], mode: Mode, concurrency: int
) -> list[AskedTwice]:
    """Has every case judged in a mode, both ways round.

    Raises:
        ProxyGrmError: the service gave no judgement for one of them.
    """

    async def one(question: tuple[ToyCase, bool]) -> Answer:
        case, turned = question
        return await ask(client, case, mode, turned=turned)

    questions = [(case, turned) for case in cases for turned in (False, True)]
    answers = await ask_all(mode.name, questions, one, concurrency)
    pairs = zip(cases, answers[::2], answers[1::2], strict=True)
    return [AskedTwice(case, plain, turned) for case, plain, turned in pairs]


async def refusal(client: AsyncClient, case: ToyCase, mode: Mode) -> str | None:
    """Why a service does not judge in a mode at all; None where it does."""
    try:
        await ask(client, case, mode)
    except (InvalidRequest, NotFound) as error:
        return error.detail
    return None


def figures(asked: Sequence[AskedTwice]) -> dict[str, Any]:
    """One mode's row, shares of 1; an abstention counts as not right and not consistent."""
    right = [one.is_right for one in asked]
    known = [one.plain.probability for one in asked if one.plain.probability is not None]
    sure = [0.5 if p is None else max(p, 1 - p) for p in (one.plain.probability for one in asked)]
    both = [one.both for one in asked if one.both is not None]
    same = sum((p >= 0.5) == (q >= 0.5) for p, q in both)
    low, high = _UNDECIDED
    answers = [answer for one in asked for answer in (one.plain, one.turned)]
    return {
        "n": len(asked),
        "accuracy": _mean(right),
        "accuracy_interval_95": [round(x, 4) for x in wilson_interval(sum(right), len(right))],
        **{
            f"accuracy_{stratum}_decided": _mean(
                [one.is_right for one in asked if one.case.stratum == stratum]
            )
            for stratum in STRATA
        },
        "readable": round(len(known) / len(asked), 4),
        "order_consistent": round(same / len(asked), 4),
        "verdict_flips": None if not both else round(1 - same / len(both), 4),
        "undecided": _mean([low <= p <= high for p in known]),
        "auroc": _rounded(auroc(sure, right)),
        "tokens": round(sum(a.tokens for a in answers) / len(answers), 1),
        "calls": round(sum(a.calls for a in answers) / len(answers), 2),
        "asymmetry": _mean([abs(p - q) for p, q in both]),
        "stopped": dict(Counter(a.stopped for a in answers)),
    }


async def compare(
    client: AsyncClient,
    cases: Sequence[ToyCase],
    wanted: Sequence[Mode],
    concurrency: int,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Every mode's figures by its name; and the modes that the service has not, with its reasons.

    Raises:
        ProxyGrmError: the service gave no judgement.
    """
    found: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for mode in wanted:
        why = await refusal(client, cases[0], mode)
        if why is None:
            found[mode.name] = figures(await ask_twice(client, cases, mode, concurrency))
        else:
            left_out[mode.name] = why
    return found, left_out


def against(found: dict[str, dict[str, Any]], cheap: str, dear: str) -> dict[str, float] | None:
    """Points of accuracy that a cheaper mode loses, and its share of the tokens.

    None where one of the two was not measured.
    """
    if not found.keys() >= {cheap, dear}:
        return None
    one, other = found[cheap], found[dear]
    return {
        "points_lost": round(100 * (other["accuracy"] - one["accuracy"]), 2),
        "tokens_share": round(one["tokens"] / other["tokens"], 3),
    }


async def measure(client: AsyncClient, options: argparse.Namespace) -> dict[str, Any]:
    """All modes on the same cases; prints the table on the way."""
    cases = fresh_cases(options.cases, options.seed)
    first = cases[0]
    release = (await client.score(first.question, first.responses, [first.picture()])).release
    present = [
        name
        for name in options.evaluators
        if await refusal(client, first, Mode(name, {"evaluators": [name]})) is None
    ]
    wanted = modes(options.temperature, present)
    if options.modes:
        wanted = [mode for mode in wanted if mode.name in options.modes]
    found, left_out = await compare(client, cases, wanted, options.concurrency)
    if not present:
        left_out["panel"] = f"the service has none of {', '.join(options.evaluators)}"
    print_table([title for title, _ in _COLUMNS], _rows(found))
    saved = against(found, "adaptive", "both + votes 4")
    if saved is not None:
        lost, share = saved["points_lost"], saved["tokens_share"]
        print(f"adaptive: {lost} points less than both + votes 4, {share} of its tokens")
    return {
        "modes": found,
        "adaptive_against_both_votes": saved,
        "left_out": left_out,
        "evaluators": present,
        "temperature_of_votes": options.temperature,
        "release": release.name,
        "fingerprint": release.fingerprint,
    }


_COLUMNS = (
    ("mode", ""),
    ("accuracy", "accuracy"),
    ("image", "accuracy_image_decided"),
    ("rubric", "accuracy_rubric_decided"),
    ("text", "accuracy_text_decided"),
    ("consistent", "order_consistent"),
    ("flips", "verdict_flips"),
    ("P in 0.1..0.9", "undecided"),
    ("AUROC", "auroc"),
    ("tokens", "tokens"),
    ("calls", "calls"),
    ("|P(A,B)-(1-P(B,A))|", "asymmetry"),
)


def _rows(found: dict[str, dict[str, Any]]) -> list[list[Any]]:
    return [[name, *(row[key] for _, key in _COLUMNS[1:])] for name, row in found.items()]


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main(argv: list[str] | None = None) -> int:
    """``python -m models.benchmarks.judging``."""
    prog = "python -m models.benchmarks.judging"
    parser = benchmark_parser(
        prog,
        "What each way of judging gains and costs, on fresh drawn scenes.",
        f"{prog} --cases 2000 --seed 7; or a part of it: {prog} --modes given,both,adaptive",
    )
    parser.add_argument(
        "--modes", type=_names, default=[], help="apart by commas; all of them if none"
    )
    parser.add_argument("--temperature", type=float, default=0.7, help="of the votes")
    parser.add_argument(
        "--evaluators", type=_names, default=["self", "proxy"], help="of the panel, where present"
    )
    options = parser.parse_args(argv)
    known = [mode.name for mode in modes(options.temperature, ["anybody"])]
    if unknown := [name for name in options.modes if name not in known]:
        parser.error(f"no mode is called {', '.join(unknown)}: there are {', '.join(known)}")

    async def measured() -> dict[str, Any]:
        async with AsyncClient(options.url, timeout_s=600) as client:
            return await measure(client, options)

    return print_figures(options.url, measured)


if __name__ == "__main__":
    sys.exit(main())
