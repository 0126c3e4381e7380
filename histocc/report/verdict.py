"""What a run's figures come to, in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from histocc.metrics.one_answer import MOST_FREQUENT
from histocc.report.facts import RunFacts
from histocc.report.markup import percent
from histocc.training.reporting import HEAD_NAMES

# A smaller change of the validation loss, as a share of it, is no news.
_NOTICED = 0.01


def verdict(facts: RunFacts, rows: Sequence[Mapping[str, float]], heads: Mapping[str, Any]) -> list[str]:
    """The figure that people ask for, what to compare it with, and whether training was long enough.

    Parameters
    ----------
    facts
        What the run is.
    rows
        Figures of its evaluations; at least one.
    heads
        Those of the last one by head and group, see `RunRecord.details`; empty where there are none.
    """
    return [*_right(heads, rows[-1]), *_most_frequent(rows[-1]), *_trend(facts, rows)]


def _right(heads: Mapping[str, Any], last: Mapping[str, float]) -> list[str]:
    if not heads:
        return [f"Validation loss {last.get('val_loss', float('nan')):.4g}."]
    head, figures = next(iter(heads.items()))
    groups = figures["by_description"]
    seen, unseen = (percent(groups[name]["exact_set_acc"]) if name in groups else None for name in ("seen", "unseen"))
    text = (
        f"{percent(figures['exact_set_acc'])} % of {figures['rows']:,} validation rows get exactly their codes "
        f"({HEAD_NAMES[head]})."
    )
    if seen and unseen:
        text += f" Where training has the same description it is {seen} %, where it has not, {unseen} %."
    elif seen or unseen:
        text += f" {'All' if seen else 'None'} of these descriptions stand in the training data too."
    return [text]


def _most_frequent(last: Mapping[str, float]) -> list[str]:
    share = last.get(MOST_FREQUENT)
    if share is None:
        return []
    return [f"For comparison: the most frequent code, given to every row, would be right in {share:.1f} % at most."]


def _trend(facts: RunFacts, rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Whether the validation loss still falls, or has risen; nothing before the end, or where it does neither."""
    losses = [(row["val_loss"], int(row["step"])) for row in rows if "val_loss" in row]
    if len(losses) < 2 or not facts.total_steps or losses[-1][1] < facts.total_steps:
        return []
    (before, _), (last, _) = losses[-2:]
    lowest, step = min(losses)
    if last == lowest and last < before * (1 - _NOTICED):
        return ["The validation loss was still falling at the end: longer training may well help."]
    if last > lowest * (1 + _NOTICED):
        kept = "; best.bin has the weights of that step" if facts.kind == "mixer" else ""
        since = f"The validation loss was lowest at step {step:,} and has risen since{kept}"
        return [f"{since}: longer training will hardly help."]
    return []
