"""`codes.csv`: how often each code occurs, in which languages, and in which descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histocc.files.csv_lines import csv_text
from histocc.files.run_folder import CODE_FREQUENCIES
from histocc.preparation.diagnosis import Labels, count
from histocc.preparation.table import Table

COLUMNS = ("code", "rows", "share", "languages", "examples")
# A code with fewer rows is hardly learnt.
FEW_ROWS = 5
EXAMPLES = 3
# Rows of a code that are looked at to find different examples.
_ROWS_LOOKED_AT = 20


@dataclass
class Frequencies:
    """The codes of the rows that are kept.

    Attributes
    ----------
    rows
        int64 [codes], in how many rows each code of `Labels.codes` occurs.
    cells
        Per code its rows in order, as positions in the table.
    """

    rows: np.ndarray
    cells: list[np.ndarray]

    @classmethod
    def of(cls, labels: Labels, kept: np.ndarray) -> Frequencies:
        """Count; a code that a row has twice counts once."""
        ids = labels.ids[kept]
        first = ids >= 0
        for j in range(1, ids.shape[1]):
            first[:, j] &= (ids[:, :j] != ids[:, j : j + 1]).all(axis=1)
        row_of, _ = np.nonzero(first)  # row by row
        codes = ids[first]
        order = np.argsort(codes, kind="stable")
        rows = np.bincount(codes, minlength=len(labels.codes))
        return cls(rows, np.split(kept[row_of[order]], np.cumsum(rows)[:-1]))

    def notes(self) -> list[str]:
        """A warning about rare codes, if there are any."""
        there = self.rows[self.rows > 0]
        rare, once = int((there < FEW_ROWS).sum()), int((there == 1).sum())
        if not rare:
            return []
        have = "has" if rare == 1 else "have"
        return [
            f"Warning: {rare:,} of {count(len(there), 'code')} {have} fewer than five rows and will hardly be learnt; "
            f"{once:,} of them a single one, which either trains or validates. {CODE_FREQUENCIES} lists every code"
        ]

    def write(self, path: Path, table: Table, labels: Labels, key: Mapping[str, int], n_rows: int) -> None:
        """Write the table, the most frequent code first.

        Parameters
        ----------
        path
            The file.
        table
            The table.
        labels
            Its codes.
        key
            The class of each code; codes that the data lack have no rows.
        n_rows
            How many rows are kept.
        """
        number_of = {code: i for i, code in enumerate(labels.codes) if self.rows[i]}
        listed = sorted(key, key=lambda code: -self.rows[number_of[code]] if code in number_of else 0)
        lines = [COLUMNS]
        for code in listed:
            rows = self.cells[number_of[code]] if code in number_of else np.empty(0, dtype=np.int64)
            share = f"{len(rows) / n_rows:.6f}"
            lines.append([code, str(len(rows)), share, _languages(table, rows), _examples(table, rows)])
        path.write_bytes(csv_text(lines).encode())


def _languages(table: Table, rows: np.ndarray) -> str:
    """`da 12, en 3`: the languages of some rows, the most frequent first."""
    counts = np.bincount(table.languages[rows], minlength=len(table.language_values))
    order = np.argsort(-counts, kind="stable")
    return ", ".join(f"{table.language_values[i]} {counts[i]}" for i in order.tolist() if counts[i])


def _examples(table: Table, rows: np.ndarray) -> str:
    """Different descriptions from the first of some rows."""
    texts = dict.fromkeys(table.texts[row] for row in rows[:_ROWS_LOOKED_AT].tolist())
    return "; ".join(list(texts)[:EXAMPLES])
