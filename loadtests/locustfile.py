"""Callers with the client, by Locust (``requirements/loadtests.txt``).

    locust -f loadtests/locustfile.py --headless -u 16 -t 60s --host http://127.0.0.1:8000

Each waits for its judgement before it asks again: a closed loop; ``python -m loadtests`` is the
open one. Whatever is no judgement is a failure, and the exit status is 1 when an objective is
missed.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from locust import User, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from proxy_grm_client import Client, ProxyGrmError
from proxy_grm_client.calls import ScoreOptions

from loadtests.arrivals import TYPED_REFUSALS, Answered, Outcome
from loadtests.bodies import drawn
from loadtests.objectives import Objectives, figures_of

_CASES = drawn(64)


@dataclass(slots=True)
class _Run:
    """What all callers of this process have had."""

    began: float = 0.0
    answers: list[Answered] = field(default_factory=list[Answered])


_RUN = _Run()


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--depth", choices=("full", "verdict"), default="verdict")
    parser.add_argument("--objectives", default=str(Path(__file__).with_name("objectives.toml")))


@events.test_start.add_listener
def _begin(**_: Any) -> None:
    _RUN.began, _RUN.answers = time.monotonic(), []


@events.quitting.add_listener
def _judge(environment: Environment, **_: Any) -> None:
    """Says which objectives were missed; Locust itself minds failures alone."""
    options: Any = environment.parsed_options
    figures = figures_of(_RUN.answers, time.monotonic() - _RUN.began)
    for one in Objectives.read(Path(options.objectives)).objective:
        if not one.met(figures):
            print(f"MISSED {one.figure}: {figures[one.figure]:.4g}, to be {one}")
            environment.process_exit_code = 1


class Caller(User):
    """One who asks for a verdict, reads it and asks for the next."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Opens its connection; a key is taken from ``PROXY_GRM_API_KEY``."""
        options: Any = self.environment.parsed_options
        self._client = Client(self.host)
        self._asked = ScoreOptions(depth=options.depth, cache="bypass")

    def on_stop(self) -> None:
        """Gives it back."""
        self._client.close()

    @task
    def score(self) -> None:
        """Has a drawn case judged; the client tries again what is worth it."""
        case, began, failure = random.choice(_CASES), time.monotonic(), None
        outcome: Outcome = "ok"
        code = "200"
        try:
            self._client.score(case["question"], case["responses"], case["images"], **self._asked)
        except ProxyGrmError as error:
            outcome, code, failure = "failed", error.code, error
            if code in TYPED_REFUSALS:
                outcome = "refused"
        seconds = time.monotonic() - began
        _RUN.answers.append(Answered(outcome, code, began - _RUN.began, seconds))
        self.environment.events.request.fire(
            request_type="POST",
            name="/score",
            response_time=seconds * 1000,
            response_length=0,
            exception=failure,
        )
