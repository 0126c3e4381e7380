"""The figure of a run: losses and accuracies by epoch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from histocc.files.atomic import write_atomically

HOW_TO_GET = "No figure of losses and accuracies is drawn, since matplotlib is missing: pip install 'histocc[plots]'"

_TRAINING, _VALIDATION, _REFERENCE = "#1f77b4", "#d95f02", "#666666"


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_history(
    path: str | os.PathLike[str], history: Mapping[str, Sequence[float]], reference_loss: float | None = None
) -> None:
    """Draw losses and accuracies, training and validation, into an image file; it is replaced as a whole.

    Parameters
    ----------
    path
        The file; its ending decides the format (`.png`, `.pdf`, `.svg`).
    history
        A number per epoch under `train_loss`, `val_loss`, `train_acc`, `val_acc`; accuracies are shares 0..1.
    reference_loss
        Drawn as a line to compare with.
    """
    # A figure without pyplot: no window, no change of the caller's backend.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    path = Path(path)
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for axes, kind in ((losses, "loss"), (accuracies, "acc")):
        for part, label, colour in (("train", "training", _TRAINING), ("val", "validation", _VALIDATION)):
            values = history[f"{part}_{kind}"]
            axes.plot(range(1, len(values) + 1), values, color=colour, label=label, marker="o", markersize=3)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if reference_loss is not None:
        losses.axhline(reference_loss, color=_REFERENCE, linestyle="--", linewidth=1, label="class frequencies alone")
    losses.set_title("Loss (binary cross entropy)", loc="left")
    losses.set_ylim(bottom=0)
    accuracies.set_title("Rows with exactly the right codes", loc="left")
    accuracies.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    accuracies.set_ylim(0, 1)
    losses.legend(frameon=False)
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix.lstrip("."), dpi=120))
