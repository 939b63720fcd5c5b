"""Drills by name, what each is held to, and the table of how they went."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.drills import (
    abandoned,
    clock_jump,
    disk_full,
    draining,
    gateway_death,
    hostile,
    image_cpu,
    job_deaths,
    long_job,
    many,
    memory,
    network_cut,
    overload,
    redis_death,
    slow_bodies,
)
from loadtests.drills.manifests import affinity, engine_death
from loadtests.drills.manifests import drill as manifests
from loadtests.drills.rows import DrillFailed, EngineName, NotHere, Row, Scale
from loadtests.drills.site import Site, site
from loadtests.objectives import Bound

DRILLS: Mapping[str, Callable[[Site, Scale], Row]] = {
    "overload": overload.run,
    "abandoned": abandoned.run,
    "gateway-death": gateway_death.run,
    "job-deaths": job_deaths.run,
    "redis-death": redis_death.run,
    "disk-full": disk_full.run,
    "clock-jump": clock_jump.run,
    "slow-bodies": slow_bodies.run,
    "draining": draining.run,
    "hostile": hostile.run,
    "many": many.run,
    "network-cut": network_cut.run,
    "image-cpu": image_cpu.run,
    "memory": memory.run,
    "long-job": long_job.run,
    "manifests": manifests.run,
    "engine-death": engine_death.run,
    "affinity": affinity.run,
}
ENGINES: Mapping[str, tuple[EngineName, ...]] = {
    "job-deaths": ("vllm",),
    "memory": ("scripted", "vllm"),
    "manifests": ("vllm",),
    "engine-death": ("vllm",),
    "affinity": ("vllm",),
}
"""What judges in a drill, by turns, where nobody says otherwise: the real engine where the drill is
about it, else the scripted one, which lets the gateway be the bottleneck."""
_MOST: tuple[EngineName, ...] = ("scripted",)
OBJECTIVES = Path(__file__).with_name("objectives.toml")
_COLUMNS = ("drill", "load", "requests", "ok", "typed refusals", "wrong or lost", "recovery s")


@dataclass(frozen=True, slots=True)
class Carried:
    """A drill that was tried.

    Attributes:
        row: None where it could not be carried through.
        missed: what it has not reached, in words; nothing where it could not be tried here.
        reason: why there is no row.
    """

    name: str
    row: Row | None
    missed: tuple[str, ...] = ()
    reason: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the table's columns."""
        row = self.row
        if row is None:
            return (self.name, self.reason, *([""] * 5))
        seconds = "" if row.recovery_s is None else f"{row.recovery_s:.1f}"
        counts = (row.requests, row.ok, row.refused, row.wrong)
        return (self.name, row.load, *map(str, counts), seconds)


def objectives(path: Path = OBJECTIVES) -> dict[str, dict[str, Bound]]:
    """What each drill is held to, by drill and figure."""
    table = TypeAdapter(dict[str, dict[str, Bound]])
    return table.validate_python(tomllib.loads(path.read_text()))


def planned(names: Sequence[str], engine: EngineName | None) -> list[tuple[str, EngineName]]:
    """Drills in turn, each with what judges in it.

    Args:
        names: of drills; none for all of them.
        engine: for all of them; None for each drill's own.
    """
    plan: list[tuple[str, EngineName]] = []
    for name in names or DRILLS:
        engines = ENGINES.get(name, _MOST) if engine is None else (engine,)
        plan.extend((name, one) for one in engines)
    return plan


def carried_out(drill: str, scale: Scale, bounds: Mapping[str, Bound]) -> Carried:
    """Carries one drill out and holds it to its objectives."""
    name = titled(drill, scale.engine)
    try:
        with site(scale) as place:
            row = DRILLS[drill](place, scale)
    except NotHere as reason:
        return Carried(name, None, reason=f"not run: {reason}")
    except DrillFailed as failure:
        return Carried(name, None, (str(failure),), "failed")
    missed = [f"{row.wrong} wrong or lost"] if row.wrong else []
    for figure, bound in bounds.items():
        found = row.figures.get(figure, math.nan)
        if not bound.holds(found):
            missed.append(f"{figure} is {found:.4g}, to be {bound}")
    return Carried(name, row, tuple(missed))


def titled(drill: str, engine: EngineName) -> str:
    """A drill's name in the table: with its engine, unless that is the scripted one."""
    return drill if engine == "scripted" else f"{drill}, {engine}"


def shown(drills: Sequence[Carried]) -> str:
    """The table, and under it what was measured and missed."""
    rows = [_COLUMNS, *(one.cells for one in drills)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    for one in drills:
        if one.row is not None:
            figures = [f"{name} {value:.4g}" for name, value in one.row.figures.items()]
            lines.append(f"{one.name}: {', '.join([*figures, *one.row.notes])}")
        lines += [f"MISSED {one.name}: {missed}" for missed in one.missed]
    return "\n".join(lines)
