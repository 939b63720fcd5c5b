"""What can be said on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import get_args

from proxy_grm_client.calls import Depth, Order, RankOrder
from proxy_grm_client.cli import batch, commands, doctor, jobs

_EXAMPLES = """examples:
  proxy-grm score scene.png -q "How many circles?" -a "There are 2." -b "There are 3."
  proxy-grm rank scene.png -q "How many circles?" -r "Two." -r "Three." -r "Four."
  proxy-grm batch pairs.jsonl judgements.jsonl
  proxy-grm jobs submit pairs.jsonl
  proxy-grm doctor

The service is at --url, else at PROXY_GRM_URL, else at http://127.0.0.1:8000; a key is taken from
PROXY_GRM_API_KEY."""
_SCORE = """example:
  proxy-grm score cat.jpg -q "How many cats?" -a "One." -b "Two." --order both
"""
_RUBRIC = """example:
  proxy-grm rubric cat.jpg -q "How many cats?" -a "One." -b "Two."
"""
_RANK = """example:
  proxy-grm rank cat.jpg -q "How many cats?" -r "One." -r "Two." -r "Three."
"""
_RUN = """Judgements are counted by the run_id that their requests name.

example:
  proxy-grm run grpo-17
"""
_BATCH = """A line is what POST /score takes, as JSON: {"id", "question", "responses", "images", …}.
Images are {"data": base64}, {"url": ...}, or the path of a file.
Lines whose results are in the output are not judged again: after a crash, the same command goes on.

example:
  proxy-grm batch pairs.jsonl judgements.jsonl --order both
"""
_JOBS = """Workers of the service judge a job's lines; it goes on when this program ends.

examples:
  proxy-grm jobs submit pairs.jsonl --order both     # prints the job's id
  proxy-grm jobs submit --source s3://bucket/pairs.parquet --wait
  proxy-grm jobs status job_…
  proxy-grm jobs results job_… judgements.jsonl      # as they come; ends when the job has
  proxy-grm jobs cancel job_…
"""
_DOCTOR = """example:
  proxy-grm doctor --url http://judge:8000
"""

_Command = Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """Says how to get on, not only what is wrong."""

    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}\n{self.prog} --help shows an example\n")


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    top = _Parser(
        prog="proxy-grm",
        description="Which of two answers about an image is better, why, and how sure?",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, run: _Command, said: str, more: str) -> argparse.ArgumentParser:
        made = _added(found, name, said, more)
        made.set_defaults(command=run)
        made.add_argument("--url", help="where the service listens")
        return made

    for name, run, said, more in (
        ("score", commands.score, "judge two responses", _SCORE),
        ("rubric", commands.rubric, "write a rubric for two responses", _RUBRIC),
    ):
        pair = command(name, run, said, more)
        _about_pictures(pair)
        pair.add_argument("-a", required=True, metavar="RESPONSE", help="the first response")
        pair.add_argument("-b", required=True, metavar="RESPONSE", help="the second response")
        if name == "score":
            _how_to_judge(pair)
        _about_waiting(pair)
    rank = command("rank", commands.rank, "put 2 to 64 responses in order", _RANK)
    _about_pictures(rank)
    rank.add_argument(
        "-r", required=True, action="append", metavar="RESPONSE", help="a response; say it again"
    )
    _how_to_judge(rank, get_args(RankOrder))
    _about_waiting(rank)
    one_run = command("run", commands.run, "is the judge of a training run being fooled?", _RUN)
    one_run.add_argument("run", help="its id, as the requests' run_id names it")
    one_run.add_argument("--json", action="store_true", help="print the service's answer as it is")
    _about_waiting(one_run)
    many = command("batch", batch.run, "judge a file of comparisons", _BATCH)
    many.add_argument("input", help="comparisons, one JSON object a line")
    many.add_argument("output", help="judgements, one JSON object a line; goes on where it was")
    many.add_argument(
        "--retry-errors", action="store_true", help="judge lines again that had an error"
    )
    _how_to_judge(many)
    _about_waiting(many, 300.0)
    _about_jobs(_added(found, "jobs", "have the service's workers judge a file", _JOBS))
    command("doctor", doctor.run, "look whether the service is well", _DOCTOR)
    return top


def _added(
    to: argparse._SubParsersAction[_Parser],  # pyright: ignore[reportPrivateUsage] - has no other name
    name: str,
    said: str,
    more: str = "",
) -> _Parser:
    return to.add_parser(
        name,
        help=said,
        description=said,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _about_jobs(to: argparse.ArgumentParser) -> None:
    found = to.add_subparsers(metavar="WHAT", required=True, parser_class=_Parser)
    made: dict[str, _Parser] = {}
    for name, run, said in (
        ("submit", jobs.submit, "hand over a file of comparisons; prints the job's id"),
        ("status", jobs.status, "how far a job has come"),
        ("wait", jobs.wait, "wait until a job has ended"),
        ("results", jobs.results, "each line's result; goes on until the job has ended"),
        ("cancel", jobs.cancel, "end a job"),
    ):
        made[name] = _added(found, name, said)
        made[name].set_defaults(command=run)
        made[name].add_argument("--url", help="where the service listens")
        if name != "submit":
            made[name].add_argument("job", help="its id: job_…")
    submit = made["submit"]
    submit.add_argument("input", nargs="?", help="comparisons, one JSON object a line")
    submit.add_argument("--source", metavar="URL", help="of a file that the service reads itself")
    submit.add_argument("--wait", action="store_true", help="until the job has ended")
    _how_to_judge(submit)
    made["status"].add_argument("--json", action="store_true", help="as the service answers")
    made["results"].add_argument("output", nargs="?", help="a new file; absent, they are printed")


def _about_pictures(to: argparse.ArgumentParser) -> None:
    to.add_argument("images", nargs="*", metavar="IMAGE", help="file or URL of a picture")
    to.add_argument("-q", required=True, metavar="QUESTION", help="what is asked")
    to.add_argument("--json", action="store_true", help="print the service's answer as it is")


def _about_waiting(to: argparse.ArgumentParser, seconds: float = 120.0) -> None:
    to.add_argument(
        "--timeout",
        type=float,
        default=seconds,
        metavar="SECONDS",
        help="for an answer, until the service is there included (default: %(default)g)",
    )


def _how_to_judge(to: argparse.ArgumentParser, orders: tuple[str, ...] = get_args(Order)) -> None:
    to.add_argument("--order", choices=orders, help="which orders are read")
    to.add_argument("--depth", choices=get_args(Depth), help="verdict: no evaluation; faster")
    to.add_argument("--rubric", metavar="TEXT", help="judge by this; or by the id of one: rub_…")
