"""The paper's experiment in miniature: does a proxy's reward make rubrics that transfer?

Four arms from one short cold start a seed: supervised training alone; GRPO without a proxy; GRPO
with the proxy after supervised training; GRPO with the proxy after reinforcement learning too. The
supervised proxy is the shipped release's. Each judge is released with an evaluator that no training
run has ever asked, and measured through the service: its accuracy, and what its rubrics are worth
to that evaluator.

Every step is a job of ``python -m models.training`` in a process of its own: a killed experiment
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.benchmarks.asking import at_least_one
from models.errors import ModelsError
from models.training.errors import TrainingError
from models.training.tiny.experiment_figures import differences, measure, pooled, table

_RUNS = {
    "SFT": "sft",
    "GRPO, no proxy": "none",
    "GRPO, Proxy-SFT": "proxy-sft",
    "GRPO, Proxy-RL": "proxy-rl",
}
_SHIPPED = Path("models/releases/tiny")
_BATCH = 32
"""Examples of a step of supervised training, in the recipe."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training job: a shipped recipe and what is put over it."""

    recipe: str
    settings: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """As a user would type it."""
        options = [word for setting in self.settings for word in ("--set", setting)]
        return [sys.executable, "-m", "models.training", self.recipe, *options]


@dataclass(frozen=True)
class Plan:
    """Where everything of an experiment lies, and how large it is.

    Attributes:
        root: all runs go under it.
        cold_start: supervised examples of each judge.
        prompts: rollout prompts of each GRPO run.
        cases: fresh ones that each arm of a seed is measured on.
    """

    root: Path
    seeds: int = 2
    cold_start: int = 16_000
    prompts: int = 160
    cases: int = 1000

    @property
    def arms(self) -> tuple[str, ...]:
        """What is compared, the cold start first."""
        return tuple(_RUNS)

    def judge(self, arm: str, seed: int) -> Path:
        """The run that makes an arm's judge."""
        return self.root / f"{_RUNS[arm]}-{seed}"

    def release(self, arm: str, seed: int) -> Path:
        """The judge of an arm with the evaluator beside it."""
        return self.root / "releases" / self.judge(arm, seed).name

    def jobs(self) -> Iterator[Job]:
        """All of them, each after those that it needs."""
        supervised, reinforced = _SHIPPED / "proxy", self.root / "proxy-rl"
        proxies = {"GRPO, Proxy-SFT": supervised, "GRPO, Proxy-RL": reinforced / "model"}
        evaluator = self.root / "evaluator"
        yield Job("tiny-look", ())
        yield Job(
            "tiny-sft-proxy",
            (*self._at(evaluator.name, 900), _path("model", _SHIPPED / "judge")),
        )
        yield Job(
            "tiny-proxy-rl",
            (*self._at(reinforced.name, 901), _path("model", supervised), self._drawn()),
        )
        for seed in range(self.seeds):
            start = self.judge("SFT", seed)
            yield Job("tiny-sft-judge", (*self._at(start.name, 910 + seed), *self._cold_start()))
            for arm in self.arms[1:]:
                settings = (
                    *self._at(self.judge(arm, seed).name, 920 + seed),
                    _path("model", start / "model"),
                    self._drawn(),
                )
                if (proxy := proxies.get(arm)) is None:
                    yield Job("tiny-grpo", (*settings, 'aggregation="none"', "proxy_release="))
                    continue
                asked = self.root / "asked" / self.judge(arm, seed).name
                yield self._paired(asked, start, proxy)
                release = _path("proxy_release", asked / "release")
                yield Job("tiny-grpo", (*settings, release))
            for arm in self.arms:
                judge = self.judge(arm, seed)
                yield self._paired(self.release(arm, seed), judge, evaluator / "model")

    def _cold_start(self) -> tuple[str, ...]:
        # The recipe's own decay is longer than so short a run.
        steps = self.cold_start // _BATCH
        return (
            f"data.examples={self.cold_start}",
            f"train.warmup_steps={steps // 10}",
            f"train.lr_scheduler_kwargs.num_decay_steps={steps // 2}",
        )

    def _drawn(self) -> str:
        return f"data.prompts_drawn={self.prompts}"

    def _paired(self, run: Path, judge: Path, proxy: Path) -> Job:
        """A release of a judge and somebody who is shown its rubrics."""
        return Job(
            "tiny-interim",
            (
                _path("run", run),
                _path("judge", judge / "model"),
                _path("proxy", proxy),
            ),
        )

    def _at(self, name: str, seed: int) -> tuple[str, ...]:
        return (_path("run", self.root / name), f"data.seed={seed}", f"train.seed={seed}")


def _path(key: str, path: Path) -> str:
    return f"{key}={json.dumps(str(path))}"


def run_jobs(jobs: Sequence[Job]) -> None:
    """Runs each that is not finished.

    Raises:
        TrainingError: one failed; what it said is above.
    """
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {' '.join(job.command[1:])}", flush=True)
        if subprocess.run(job.command, check=False).returncode:
            raise TrainingError("a job failed: see above; run this again to go on")


def main(argv: list[str] | None = None) -> int:
    """``python -m models.training.tiny.experiment``."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.tiny.experiment",
        description="Four ways to train a toy judge, compared by accuracy and by how far its "
        "rubrics lead an evaluator that it never met. Needs the shipped release alone. Hours; "
        "goes on where it was.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path("runs/experiment"))
    parser.add_argument("--seeds", type=at_least_one, default=Plan.seeds)
    parser.add_argument("--cold-start", type=at_least_one, default=Plan.cold_start)
    parser.add_argument("--prompts", type=at_least_one, default=Plan.prompts)
    parser.add_argument("--cases", type=at_least_one, default=Plan.cases)
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(argv)
    plan = Plan(options.root, options.seeds, options.cold_start, options.prompts, options.cases)
    jobs = list(plan.jobs())
    if options.dry_run:
        print("\n".join(" ".join(job.command[1:]) for job in jobs))
        return 0
    try:
        run_jobs(jobs)
        found = [
            [measure(plan.release(arm, seed), arm, seed, plan.cases) for seed in range(plan.seeds)]
            for arm in plan.arms
        ]
    except ModelsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sums = [pooled(arm) for arm in found]
    shown = table([row for arm, all_of in zip(found, sums, strict=True) for row in (*arm, all_of)])
    start, without, *with_proxy = sums
    gains = [*((arm, start) for arm in sums[1:]), *((arm, without) for arm in with_proxy)]
    shown += f"\n\n{differences(gains)}"
    (plan.root / "table.md").write_text(f"{shown}\n", encoding="utf-8")
    print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
