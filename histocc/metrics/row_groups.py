"""Groups of the rows of an evaluation: by language, by number of true codes, by whether training has their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# What is counted per group of rows, in the order of the last axis of `GroupCounts.array`.
COUNTED = ("rows", "exact", "true_positive", "predicted", "true")
# The groups by number of true codes.
_CODES = ("0", "1", "2", "3+")
_DESCRIPTIONS = ("unseen", "seen")


@dataclass(frozen=True)
class RowGroups:
    """What is known of each row of a data set before anything is predicted.

    Attributes
    ----------
    languages
        Distinct languages; empty tells none apart.
    language_index
        Index into `languages` of each row, [rows]; None where none are told apart.
    seen
        Whether the training data have the text of each row, bool [rows]; None where that is not known.
    """

    languages: Sequence[str] = ()
    language_index: np.ndarray | None = None
    seen: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.languages and self.language_index is None:
            raise ValueError("language_index is needed where languages are told apart")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Languages, numbers of codes, and seen or not: the axes by which rows are counted."""
        return max(1, len(self.languages)), len(_CODES), 1 if self.seen is None else len(_DESCRIPTIONS)

    @property
    def needs_rows(self) -> bool:
        """Whether a row's group depends on which row it is."""
        return bool(self.languages) or self.seen is not None

    def places(self, rows: np.ndarray | None, true_codes: np.ndarray) -> tuple[np.ndarray, ...]:
        """Where rows are counted: an index for each axis of `shape`, int64 [N] each."""
        nowhere = np.zeros(len(true_codes), dtype=np.int64)
        language = self.language_index[rows].astype(np.int64) if self.languages else nowhere
        seen = nowhere if self.seen is None else self.seen[rows].astype(np.int64)
        return language, np.minimum(true_codes, len(_CODES) - 1), seen


class GroupCounts:
    """Counts of right, predicted and true codes by group of rows.

    Attributes
    ----------
    groups
        The groups.
    array
        int64 [languages, numbers of codes, seen or not, 5], the numbers named in `COUNTED`. Its shape depends on
        `groups` alone, so that the counts of several processes can be added.
    """

    def __init__(self, groups: RowGroups | None = None) -> None:
        self.groups = RowGroups() if groups is None else groups
        self.array = np.zeros((*self.groups.shape, len(COUNTED)), dtype=np.int64)

    def add(self, numbers: np.ndarray, rows: np.ndarray | None) -> None:
        """Count rows.

        Parameters
        ----------
        numbers
            Integer [N, 5], see `COUNTED`.
        rows
            Their places in the data set, [N]; None where the groups do not ask which rows they are.

        Raises
        ------
        ValueError
            The places are missing.
        """
        if rows is None and self.groups.needs_rows:
            raise ValueError("the places of the rows are needed, since languages or texts are told apart")
        np.add.at(self.array, self.groups.places(rows, numbers[:, COUNTED.index("true")]), numbers)


def summarise(array: np.ndarray, groups: RowGroups) -> dict[str, Any]:
    """Figures in percent from the (summed) array of `GroupCounts`.

    Returns
    -------
    dict
        `rows, exact_set_acc, precision, recall, f1` over all rows, see `figures_of`; under `by_codes` ('1', '2', '3+';
        '0' too where rows have no code), `by_language` and `by_description` ('seen', 'unseen') the same for each group
        that has rows, as far as they are told apart; and under `cells` for each combination of these that has rows.
    """
    languages, descriptions = list(groups.languages) or [None], [None] if groups.seen is None else _DESCRIPTIONS
    summary: dict[str, Any] = figures_of(array.sum(axis=(0, 1, 2)))
    kinds = {"by_codes": (_CODES, (0, 2)), "by_language": (languages, (1, 2)), "by_description": (descriptions, (0, 1))}
    for kind, (names, others) in kinds.items():
        counts = array.sum(axis=others)
        summary[kind] = {n: figures_of(c) for n, c in zip(names, counts) if n is not None and c[0]}
    summary["cells"] = [
        {"language": languages[i], "codes": _CODES[j], "description": descriptions[k], **figures_of(array[i, j, k])}
        for i, j, k in np.argwhere(array[..., 0]).tolist()
    ]
    return summary


def figures_of(numbers: np.ndarray) -> dict[str, float]:
    """Figures in percent from the five numbers of `COUNTED`.

    `exact_set_acc` is the share of rows whose predicted set of codes is the true one; precision, recall and
    F1 = 2 TP / (predicted + true) are over codes. A share of nothing is NaN.
    """
    rows, exact, true_positive, predicted, true = (int(number) for number in numbers)
    return {
        "rows": rows,
        "exact_set_acc": _percent(exact, rows),
        "precision": _percent(true_positive, predicted),
        "recall": _percent(true_positive, true),
        "f1": _percent(2 * true_positive, predicted + true),
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")
