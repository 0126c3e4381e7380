"""Rows of a data frame that its owner may change at any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE, LanguagePrefixes, codepoints_of
from histocc.dataloader.rows import BadValueError, TextColumn
from histocc.dataloader.texts import Texts
from histocc.errors import UsageError
from histocc.files.tables import as_text, cells_of, columns_fault

if TYPE_CHECKING:
    import pandas as pd

_NAME = "The frame of the data set"


class FrameRows:
    """Reads rows from a frame whenever they are asked for, so that changes of the frame count.

    Parameters
    ----------
    frame
        `occ1`, `lang` and the code columns, in any type; missing cells are empty.

    Raises
    ------
    UsageError
        It is no frame, or lacks text or language.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        columns = getattr(frame, "columns", None)
        if columns is None or not hasattr(frame, "iloc"):
            raise UsageError(f"frame must be a pandas DataFrame, not {type(frame).__name__}")
        fault = columns_fault(_NAME, list(columns), ("occ1", "lang"))
        if fault:
            raise UsageError(fault)
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    def texts(self, rows: np.ndarray) -> Texts:
        """Texts and languages of some rows; a missing language is `unk`."""
        strings = self._cells("occ1", rows)
        languages = [name if name.strip() else UNKNOWN_LANGUAGE for name in self._cells("lang", rows)]
        index = {language: i for i, language in enumerate(dict.fromkeys(languages))}
        return Texts(
            codepoints_of("".join(strings)),
            np.array([len(string) for string in strings], dtype=np.int64),
            np.array([index[language] for language in languages], dtype=np.int64),
            LanguagePrefixes(list(index)),
        )

    def labels(
        self, rows: np.ndarray, columns: Sequence[str], lookup: Callable[[str], int], require_code: bool
    ) -> np.ndarray:
        """What `lookup` gives for the codes of some rows, int64 [B, code columns]; -1 from the first missing one on.

        Raises
        ------
        UsageError
            A column is missing, a row has no code though one is required, or `lookup` refuses one; it is named by its
            place, counted from 0.
        """
        labels = np.full((len(rows), len(columns)), -1, dtype=np.int64)
        is_open = np.ones(len(rows), dtype=bool)
        for j, column in enumerate(columns):
            cells = self._cells(column, rows)
            for i in np.flatnonzero(is_open).tolist():
                try:
                    labels[i, j] = lookup(cells[i])
                except BadValueError as error:
                    raise UsageError(
                        f"{_NAME}, row {rows[i]} (counted from 0), column {column!r}: {cells[i]!r} is {error.kind}"
                        + (f" ({error})" if str(error) else "")
                    ) from error
            if j == 0 and require_code and (labels[:, 0] < 0).any():
                raise UsageError(
                    f"{_NAME}, row {rows[labels[:, 0] < 0][0]} (counted from 0), column {column!r}: the first code is "
                    "missing; give the row one, or leave it out"
                )
            is_open &= labels[:, j] >= 0
        return labels

    def record(self, row: int) -> pd.DataFrame:
        """One row as a frame of its own."""
        return self.frame.iloc[row : row + 1].copy()

    def text(self) -> TextColumn:
        """The texts of all rows."""
        return TextColumn.from_strings(self._cells("occ1", np.arange(len(self))))

    def _cells(self, column: str, rows: np.ndarray) -> list[str]:
        if column not in self.frame.columns or not self.frame.columns.is_unique:
            fault = columns_fault(_NAME, list(self.frame.columns), [column])
            if fault:
                raise UsageError(fault)
        if len(rows) and rows.max() >= len(self):
            raise UsageError(
                f"Row {rows.max()} (counted from 0) is asked for, but the frame of the data set has {len(self):,} rows "
                "now: change the frame before loaders and samplers are made"
            )
        return [as_text(value, decimals=False) for value in cells_of(self.frame[column].iloc[rows])]


def cell_text(record: Any, column: str) -> str:
    """The text of a cell of a record: a one-row DataFrame, a Series, or a mapping.

    Raises
    ------
    UsageError
        There is no such cell, or there are several.
    """
    try:
        if getattr(record, "ndim", 1) == 2:
            if len(record) != 1:
                raise ValueError(f"{len(record)} rows")
            # Four times as fast as `record[column].iloc[0]`.
            value = record.iat[0, record.columns.get_loc(column)]  # noqa: PD009
        else:
            value = record[column]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"A record is one row with the column {column!r}, as a DataFrame, a Series or a dict, "
            f"but _get_record gave {type(record).__name__}: {error!r}"
        ) from error
    return as_text(value, decimals=False)
