"""Answers as a person enjoys reading them. Needs rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from proxy_grm_client.answers import Judgement, Ranking, Rate, Release, Rubric, Run, WrittenRubric
from proxy_grm_client.cli.picture import picture

_DEMO = "A demonstration release: it has only ever seen drawn scenes."


def show_judgement(
    question: str, responses: Sequence[str], images: Sequence[str], judgement: Judgement
) -> None:
    """Question and responses, rubric, evaluation and verdict."""
    console = Console()
    for image in images if console.color_system else ():
        seen = picture(image)
        if seen is not None:
            console.print(seen)
    console.print(Text(question, style="bold"))
    for place, response in enumerate(responses, start=1):
        better = judgement.preferred == place
        mark, style = ("✔", "bold green") if better else (" ", "dim")
        console.print(Text(f" {mark} {place}  {response}", style=style))
    console.print()
    if judgement.rubric is not None:
        console.print(_rubric(judgement.rubric))
    if judgement.evaluation:
        console.print(Panel(Text(judgement.evaluation), title="evaluation", title_align="left"))
    console.print(_verdict(judgement))


def show_rubric(written: WrittenRubric) -> None:
    """The rubric and its id."""
    console = Console()
    if written.rubric is None:
        console.print(Text(f"no rubric: {written.reason}", style="yellow"))
        return
    console.print(_rubric(written.rubric))
    console.print(Text(f"--rubric {written.rubric.id} judges by it", style="dim"))


def show_ranking(question: str, responses: Sequence[str], ranking: Ranking) -> None:
    """Responses, best first, each with how it stands."""
    console = Console()
    console.print(Text(question, style="bold"))
    if ranking.status != "ok":
        console.print(Text(f"no ranking: {ranking.reason}", style="yellow"))
        return
    table = Table.grid(padding=(0, 2))
    for place, index in enumerate(ranking.ranking, start=1):
        score = ranking.scores[index]
        won = score.win_rate or 0.0
        wins = ProgressBar(total=1, completed=won, width=16)
        style = "bold green" if place == 1 else ""
        table.add_row(str(place), wins, f"{won:.0%}", Text(responses[index], style=style))
    for score in ranking.scores:
        if score.status != "ok":
            unread = Text("no place: unreadable", style="yellow")
            table.add_row("–", unread, "", Text(responses[score.index]))
    console.print(table)
    if ranking.rubric is not None:
        console.print(_rubric(ranking.rubric))
    spent = f"{ranking.spent.comparisons} comparisons, {ranking.timing.total_s:.2f} s"
    console.print(Text(f"{_named(ranking.release)} · {spent} · {ranking.stopped}", style="dim"))
    if ranking.release.purpose == "demo":
        console.print(Text(_DEMO, style="dim"))


def show_run(run: Run) -> None:
    """How often the judge of a run abstained, preferred what stands first, and the like."""
    console = Console()
    console.print(Text(f"{run.id}: {run.judgements:,} judgements", style="bold"))
    table = Table.grid(padding=(0, 2))
    elsewhere = run.longer_wins_baseline
    rates = [
        ("abstained", run.abstained, _counted(run.abstentions)),
        ("injection attempts", run.injection_attempts, ""),
        ("first read preferred", run.first_position, "50% without a bias"),
        ("longer preferred", run.longer_wins, f"elsewhere {_share(elsewhere)}"),
    ]
    reliance = run.image_reliance
    if reliance is not None:
        shift = "" if reliance.mean_shift is None else f"P shifts by {reliance.mean_shift:.2f}"
        rates.append(("changed without image", reliance.changed, shift))
    for name, rate, more in rates:
        bar = ProgressBar(total=1, completed=rate.rate or 0.0, width=10)
        table.add_row(name, bar, _share(rate), f"of {rate.n:,}", Text(more, style="dim"))
    console.print(table)
    if reliance is None:
        console.print(Text("No judgement was made again without its image.", style="dim"))
    console.print(Text(_named(run.release), style="dim"))


def _share(rate: Rate) -> str:
    return "–" if rate.rate is None else f"{rate.rate:.1%}"


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)


def _rubric(rubric: Rubric) -> Panel:
    why = Text(f"\n{rubric.justification}", style="italic") if rubric.justification else Text()
    if not rubric.criteria:
        return Panel(Group(Text(rubric.text), why), title="rubric", title_align="left")
    table = Table.grid(padding=(0, 2))
    for criterion in rubric.criteria:
        weight = ProgressBar(total=1, completed=criterion.weight, width=12)
        name = Text(criterion.name, style="bold")
        table.add_row(weight, f"{criterion.weight:.0%}", name, Text(criterion.description))
    return Panel(Group(table, why), title="rubric", title_align="left")


def _verdict(judgement: Judgement) -> Panel:
    spent = f"{judgement.usage.completion_tokens} tokens, {judgement.timing.total_s:.2f} s"
    source = "from the cache" if judgement.cached else spent
    release = f"{_named(judgement.release)} · {source}"
    if judgement.probability is None:
        return Panel(Text(f"no verdict: {judgement.reason}", style="yellow"), subtitle=release)
    chance = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1, completed=judgement.probability, width=40)
    chance.add_row("P(response 1 is better)", bar, f"{judgement.probability:.1%}")
    lines: list[Text | Table] = [
        Text(f"Response {judgement.preferred} is better.", style="bold"),
        chance,
    ]
    if judgement.order_consistent is not None:
        agree = "agree" if judgement.order_consistent else "disagree"
        lines.append(Text(f"The two reading orders {agree}.", style="dim"))
    if judgement.release.purpose == "demo":
        lines.append(Text(_DEMO, style="dim"))
    return Panel(Group(*lines), title="verdict", title_align="left", subtitle=release)


def _named(release: Release) -> str:
    return f"{release.name} {release.fingerprint[:8]}"
