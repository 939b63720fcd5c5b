"""Curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PANELS: dict[str, tuple[str, ...]] = {
    "loss": ("loss", "probe_loss"),
    "accuracy of answer tokens": ("token_accuracy", "label_accuracy", "mean_token_accuracy"),
    "rewards": (
        "reward",
        "rewards/accuracy/mean",
        "rewards/proxy/mean",
        "rewards/format/mean",
    ),
    "length of answers, tokens": ("completions/mean_length",),
    "unreadable share": ("unreadable",),
    "no opinion of the proxy, share": ("proxy_abstained",),
    "learning rate": ("learning_rate",),
}
"""What is drawn together; a panel without a figure in the history is left out."""


def draw_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws every panel that the history has figures for, against the step, as a PNG.

    Args:
        history: log lines with a ``step`` each.
        path: written atomically; nothing is written when there is nothing to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    panels = {
        title: drawn
        for title, names in _PANELS.items()
        if (drawn := [n for n in names if any(n in entry for entry in history)])
    }
    if not panels:
        return
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(11, 2.8 * rows), layout="constrained")
    for place, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, 2, place)
        for name in names:
            points = [(e["step"], e[name]) for e in history if name in e]
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.25)
        if len(names) > 1:
            axes.legend(fontsize=7, frameon=False)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    partial.replace(path)
