"""Which codes are taken for which, and which are hardly ever found."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Examples of each pair of codes, and of each code.
_EXAMPLES = 3


@dataclass
class CodeTally:
    """A code, or a pair of a true and a predicted one, counted.

    Attributes
    ----------
    rows
        How many rows have it.
    found
        Of a code: in how many of them it was predicted.
    examples
        Places in the data set of the first rows in which it was not, or that have the pair; ascending.
    """

    rows: int = 0
    found: int = 0
    examples: list[int] = field(default_factory=list)

    def add(self, rows: int, found: int, examples: Sequence[int]) -> None:
        """Add what was counted elsewhere."""
        self.rows += rows
        self.found += found
        self.examples = sorted({*self.examples, *examples})[:_EXAMPLES]


@dataclass
class CodeMistakes:
    """What became of each true code.

    A true code that is missed is confused with each code that the same row got and should not have.

    Attributes
    ----------
    codes
        code -> how often it was a true one, and found.
    pairs
        (true, predicted) -> in how many rows they were confused.
    """

    codes: dict[str, CodeTally] = field(default_factory=dict)
    pairs: dict[tuple[str, str], CodeTally] = field(default_factory=dict)

    def count(self, predicted: np.ndarray, true: np.ndarray, names: Sequence[str], rows: np.ndarray) -> None:
        """Count rows.

        Parameters
        ----------
        predicted, true
            Numbers of the codes of each row, integer [N, K'] and [N, K]; -1 for none, no code twice in a row.
        names
            The codes that the numbers stand for.
        rows
            Places of the rows in the data set, [N].
        """
        same = predicted[:, :, None] == true[:, None, :]
        missed = (true >= 0) & ~same.any(axis=1)
        extra = (predicted >= 0) & ~same.any(axis=2)

        row, column = np.nonzero(true >= 0)
        code, is_missed = true[row, column].astype(np.int64), missed[row, column]
        there = np.bincount(code, minlength=len(names))
        found = there - np.bincount(code[is_missed], minlength=len(names))
        examples = _first_rows(code[is_missed], rows[row[is_missed]])
        for number in np.flatnonzero(there).tolist():
            tally = self.codes.setdefault(names[number], CodeTally())
            tally.add(int(there[number]), int(found[number]), examples.get(number, ()))

        row, i, j = np.nonzero(missed[:, :, None] & extra[:, None, :])
        pair = true[row, i].astype(np.int64) * len(names) + predicted[row, j]
        distinct, counts = np.unique(pair, return_counts=True)
        examples = _first_rows(pair, rows[row])
        for number, n in zip(distinct.tolist(), counts.tolist()):
            key = names[number // len(names)], names[number % len(names)]
            self.pairs.setdefault(key, CodeTally()).add(n, 0, examples[number])

    def merge(self, other: CodeMistakes) -> None:
        """Add what another process has counted."""
        for mine, theirs in ((self.codes, other.codes), (self.pairs, other.pairs)):
            for key, tally in theirs.items():
                mine.setdefault(key, CodeTally()).add(tally.rows, tally.found, tally.examples)

    def most_confused(self, number: int) -> list[tuple[tuple[str, str], CodeTally]]:
        """The pairs that are confused most often, the worst first."""
        return heapq.nsmallest(number, self.pairs.items(), key=lambda item: (-item[1].rows, item[0]))

    def worst_covered(self, number: int) -> list[tuple[str, CodeTally]]:
        """The codes of which the least share is found, of equals the most frequent first; none that is always found."""
        missed = [(code, tally) for code, tally in self.codes.items() if tally.found < tally.rows]
        return heapq.nsmallest(number, missed, key=lambda item: (item[1].found / item[1].rows, -item[1].rows, item[0]))


def describe_mistakes(
    mistakes: CodeMistakes, text_of: Callable[[int], str] | None = None, number: int = 20
) -> dict[str, list[dict[str, Any]]]:
    """The worst mistakes in plain values.

    Parameters
    ----------
    mistakes
        Of all processes.
    text_of
        Text of the row at a place of the data set; None gives no examples.
    number
        How many of each kind.

    Returns
    -------
    dict
        `confused`: true, predicted, rows, examples; `worst_covered`: code, rows, found, examples.
    """

    def examples(tally: CodeTally) -> list[str]:
        return [] if text_of is None else [text_of(row) for row in tally.examples]

    return {
        "confused": [
            {"true": true, "predicted": predicted, "rows": tally.rows, "examples": examples(tally)}
            for (true, predicted), tally in mistakes.most_confused(number)
        ],
        "worst_covered": [
            {"code": code, "rows": tally.rows, "found": tally.found, "examples": examples(tally)}
            for code, tally in mistakes.worst_covered(number)
        ],
    }


def _first_rows(numbers: np.ndarray, rows: np.ndarray) -> dict[int, list[int]]:
    """The first few rows of each number, ascending."""
    order = np.lexsort((rows, numbers))
    numbers, rows = numbers[order], rows[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return {int(numbers[i]): rows[i:end][:_EXAMPLES].tolist() for i, end in zip(starts, [*starts[1:], len(rows)])}
