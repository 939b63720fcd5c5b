"""A job whose workers and gateway are killed with -9 again and again.

Each line has its one result, and the verdicts are those of a run that nobody disturbed.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass

from loadtests.drills.jobs import answered, compared, finished, job_lines, results, sent_job
from loadtests.drills.rows import DrillFailed, Row, Scale
from loadtests.drills.site import Gateway, Process, Site, eventually

_SEED = 5
_WORKERS = 3
TOLERANCE = {"scripted": 0.0, "vllm": 0.02}
"""How far a probability may be from the undisturbed run's: batches of other sizes add up in other
orders. A verdict may differ where it is so near to 0.5."""


def run(site: Site, scale: Scale) -> Row:
    """Runs the job in peace, then with a worker or the gateway killed at random."""
    count, every_s = scale.count(20_000, 240), scale.seconds(15, 1)
    _, url = site.redis()
    in_flight = scale.count(64, 4)  # a small job is not to be done before anybody dies
    settings = {"REDIS_URL": url, "JOBS__LEASE_S": "5", "WORKER__IN_FLIGHT": str(in_flight)}
    engines: list[Process] = []
    if scale.engine == "vllm":  # in a process of its own, so that a gateway is soon there again
        engine, to_use_it = site.engine()
        engines.append(engine)
        settings |= to_use_it
    gateway = site.gateway(**settings, SCRIPTED__SECONDS="0.2")
    workers = [site.worker(gateway.url, **settings) for _ in range(_WORKERS)]
    lines = job_lines(count)
    calm = results(gateway, finished(gateway, sent_job(gateway, lines)))
    job = sent_job(gateway, lines)
    killer = _Killer(_Victims(gateway, workers, engines), job, every_s)
    killer.start()
    finished(gateway, job)
    killer.stop()
    if len(killer.killed) < 2:
        raise DrillFailed("the job was done before a worker and the gateway had been killed")
    found = results(gateway, job)
    wrong, notes = compared(calm, found, count, TOLERANCE[scale.engine])
    return Row(
        f"{count} lines, {_WORKERS} workers, kill -9 every {every_s:g} s",
        count,
        ok=sum(one.get("status") == "ok" for one in found),
        refused=0,
        wrong=wrong,
        recovery_s=max(killer.recovered_s),
        figures={"kills": len(killer.recovered_s)},
        notes=(*(f"{name} killed {times} ×" for name, times in killer.killed.items()), *notes),
    )


@dataclass(frozen=True, slots=True)
class _Victims:
    """Who may be killed; the engine is once."""

    gateway: Gateway
    workers: list[Process]
    engines: list[Process]


class _Killer(threading.Thread):
    """Kills one of them every so often, once the job has gone on since, and starts it again.

    Attributes:
        killed: who, and how often.
        recovered_s: from each kill until a line more had its result.
    """

    def __init__(self, victims: _Victims, job: str, every_s: float) -> None:
        super().__init__(daemon=True)
        self._victims = victims
        self._job = job
        self._every_s = every_s
        self._stopping = threading.Event()
        self.killed: Counter[str] = Counter()
        self.recovered_s: list[float] = []

    def run(self) -> None:
        """Until it is stopped: a worker, the gateway, the engine, and by chance from then on."""
        dice = random.Random(_SEED)
        for turn in itertools.count():
            if self._stopping.wait(self._every_s) or (done := self._answered()) == math.inf:
                return
            began = time.monotonic()
            if turn == 2 and self._victims.engines:
                self._again("engine", self._victims.engines[0])
            elif turn == 1 or (turn > 1 and dice.random() < 0.5):
                self._again("gateway", self._victims.gateway)
            else:
                self._again("worker", dice.choice(self._victims.workers))
            eventually("the job goes on", lambda done=done: self._answered() > done)
            self.recovered_s.append(time.monotonic() - began)

    def _again(self, name: str, process: Process) -> None:
        process.kill()
        process.start()
        self.killed[name] += 1

    def _answered(self) -> float:
        return answered(self._victims.gateway, self._job)

    def stop(self) -> None:
        """Kills nobody else; returns when all are there."""
        self._stopping.set()
        self.join()
