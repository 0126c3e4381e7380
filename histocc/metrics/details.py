"""What an evaluation knows beyond its row of ``logs.csv``: figures by group of rows for each head, and mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from histocc.metrics.mistakes import CodeMistakes, describe_mistakes
from histocc.metrics.row_groups import RowGroups, summarise
from histocc.processes.distributed import Processes

# Where the figures of an evaluation keep them.
DETAILS = "details"
# The heads, each in one way of reading its codes; what a user would get comes first.
DECODED, TEACHER_FORCED, FLAT = "decoded", "teacher_forced", "flat"
# What their figures begin with in ``logs.csv``.
PREFIXES = {DECODED: "decoded_", TEACHER_FORCED: "", FLAT: "flat_"}
_KINDS = ("codes", "language", "description")


@dataclass(frozen=True)
class Details:
    """The details of an evaluation, in plain values.

    Attributes
    ----------
    heads
        Head -> figures over all rows and by group, see `summarise`.
    mistakes
        `head`, whose mistakes they are, and those of `describe_mistakes`; None where none were counted.
    """

    heads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mistakes: Mapping[str, Any] | None = None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The figures by group, as rows of ``logs_by_group.csv`` without their step."""
        for head, summary in self.heads.items():
            for kind in _KINDS:
                for name, figures in summary[f"by_{kind}"].items():
                    yield {"by": f"{PREFIXES[head]}{kind}", "group": name, **figures}

    def by_description(self, head: str) -> Mapping[str, Mapping[str, float]]:
        """Figures of a head for texts seen and unseen in training; empty where they are not told apart."""
        return self.heads[head]["by_description"] if head in self.heads else {}


def summarise_heads(
    counts: Mapping[str, np.ndarray], groups: RowGroups, processes: Processes
) -> dict[str, dict[str, Any]]:
    """Figures of each head over the rows of all processes, from the arrays of `GroupCounts`; a collective."""
    return {head: summarise(processes.sum_array(array), groups) for head, array in counts.items()}


def columns_of(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures over all rows by their names in ``logs.csv``; only of decoded rows is it told how many there are."""
    return {
        f"{PREFIXES[head]}{name}": summary[name]
        for head, summary in heads.items()
        for name in ("rows", "exact_set_acc", "precision", "recall", "f1")
        if name != "rows" or head == DECODED
    }


def worst_mistakes(
    mistakes: CodeMistakes, head: str, text_of: Callable[[int], str] | None, processes: Processes
) -> dict[str, Any]:
    """The worst mistakes of a head over the rows of all processes; a collective."""
    total = CodeMistakes()
    for part in processes.gather(mistakes):
        total.merge(part)
    return {"head": head, **describe_mistakes(total, text_of)}
