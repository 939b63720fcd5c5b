"""``python -m models.training``: the jobs that make a release, each from a recipe file."""

from __future__ import annotations

import argparse
import shlex
import sys

from models.errors import ModelsError

_DESCRIPTION = """\
Make a judge. Each job reads one recipe (a TOML file, or the name of one that ships) and goes on
where it was when it is run again. In order:

  prepare   read published preference sets, filter them, write records and a data card
  distil    have a teacher (any OpenAI-compatible server) judge every record
  split     teacher right: proxy-sft, proxy-rl, grm-sft; teacher wrong (hard): grm-rl
  sft       fine-tune the judge on grm-sft, and the proxy on proxy-sft
  grpo      proxy-rl: the proxy by its accuracy;
            grm-rl: the judge by accuracy, form, and the agreement of the proxy, which a
            running service answers for (POST /verify)
  export    merge, convert, calibrate, evaluate, write the card, publish if it is not worse

The embedded release is made by the same jobs from drawn scenes, which need no teacher; it begins
with look, which stands in for pretraining. `make tiny` runs all of it."""

_EXAMPLES = """\
examples:
  python -m models.training tiny-sft-judge
  python -m models.training paper-grpo --set proxy_url='"http://proxy:8000"' --dry-run
  python -m models.training my/sft.toml --set train.learning_rate=1e-5
  python -m models.training --list"""


def main(argv: list[str] | None = None) -> int:
    """Runs one job."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", nargs="?", help="a recipe file, or the name of a shipped one")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="put over the recipe; KEY may be dotted, VALUE is TOML; KEY= takes KEY away",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the recipe and the trainer's arguments (not data and models), print the "
        "command for 1 and for 2 nodes, run nothing",
    )
    parser.add_argument("--list", action="store_true", help="name the recipes that ship")
    options = parser.parse_args(argv)
    if options.recipe is None and not options.list:
        parser.error("name a recipe, or ask for --list")
    try:
        return _run(options)
    except ModelsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    from models.training.recipe import read_recipe, shipped_recipes

    if options.list:
        print("\n".join(f"{name:<20} {what}" for name, what in shipped_recipes().items()))
        return 0
    recipe = read_recipe(options.recipe, tuple(options.set))
    if options.dry_run:
        from models.training.dry_run import dry_run

        print(dry_run(recipe, options.recipe, tuple(options.set)))
        return 0
    from models.training.processes import is_first_process
    from models.training.run import run

    put_over = [part for setting in options.set for part in ("--set", setting)]
    result = run(recipe, shlex.join(["python", "-m", "models.training", options.recipe, *put_over]))
    if is_first_process():
        print(f"finished: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
