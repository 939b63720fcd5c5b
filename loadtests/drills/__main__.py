"""``python -m loadtests.drills``: failure and load drills on this machine.

Starts gateways, workers and Redis as processes, does to them what machines and callers do, and
prints a table. The exit status is 1 when something was wrong or lost or an objective was missed.
"""

from __future__ import annotations

import argparse
import signal
import sys

from loadtests.drills.rows import Scale
from loadtests.drills.running import (
    DRILLS,
    Carried,
    carried_out,
    objectives,
    planned,
    shown,
    titled,
)

_EXAMPLES = """examples:
  python -m loadtests.drills
  python -m loadtests.drills overload memory --scale 0.1
  python -m loadtests.drills overload --engine vllm
"""


def main(argv: list[str] | None = None) -> int:
    """Carries drills out one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.drills",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("drills", nargs="*", metavar="DRILL", help=f"of {', '.join(DRILLS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument(
        "--engine",
        choices=("scripted", "vllm"),
        help="what judges; absent, what each drill is about: some run with both",
    )
    options = parser.parse_args(argv)
    unknown = [name for name in options.drills if name not in DRILLS]
    if unknown:
        parser.error(f"no drill is called {unknown[0]}; there are {', '.join(DRILLS)}")
    signal.signal(signal.SIGTERM, _stopped)
    bounds = objectives()
    plan = planned(options.drills, options.engine)
    done: list[Carried] = []
    for number, (name, engine) in enumerate(plan, 1):
        print(f"{number}/{len(plan)} {titled(name, engine)} …", file=sys.stderr, flush=True)
        done.append(carried_out(name, Scale(options.scale, engine), bounds.get(name, {})))
        print(shown(done[-1:]), file=sys.stderr, flush=True)
    print(shown(done))
    missed = [one for one in done if one.missed]
    print(f"{len(missed)} of {len(done)} drills missed" if missed else "all objectives met")
    return 1 if missed else 0


def _stopped(sent: int, _: object) -> None:
    """Ends this process by way of ending what it has started."""
    sys.exit(128 + sent)


if __name__ == "__main__":
    sys.exit(main())
