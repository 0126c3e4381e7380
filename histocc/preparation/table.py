"""A user's table in memory: texts as they are, codes and languages as numbers of their distinct values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.errors import UsageError
from histocc.files.review import CHECKED, is_review, is_ticked
from histocc.files.tables import (
    Chunk,
    TextCells,
    as_text,
    cells_of,
    column_names,
    columns_fault,
    file_fault,
    not_text,
    read_chunks,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Table:
    """The columns that matter, of N rows with K code columns; rows in the order of the source.

    Attributes
    ----------
    name
        What messages call the table.
    columns
        The names of all columns of the source.
    texts
        N descriptions; the empty string where there is none.
    codes
        int32 [N, K], number of each cell's text in `code_values`.
    code_values
        The distinct texts of all code cells; the empty string where there is none.
    languages
        int32 [N], number of each row's language in `language_values`.
    language_values
        The distinct languages.
    row_numbers
        int64 [N], the rows as a spreadsheet numbers them: the header is row 1.
    empty_rows
        How many rows without any value were passed over.
    unticked_rows
        Of a table to check by hand, how many rows were passed over since nobody ticked them.
    groups
        int32 [N], number of each row's group in `group_values`; None where no groups were asked for.
    group_values
        The distinct groups.
    second
        Where the table was joined of two, the name of the second and its first row.
    """

    name: str
    columns: list[str]
    texts: list[str]
    codes: np.ndarray
    code_values: list[str]
    languages: np.ndarray
    language_values: list[str]
    row_numbers: np.ndarray
    empty_rows: int
    unticked_rows: int = 0
    groups: np.ndarray | None = None
    group_values: list[str] = field(default_factory=list)
    second: tuple[str, int] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def file_of(self, row: int) -> str:
        """The name of the table that a row comes from, where there are two; else nothing."""
        if self.second is None:
            return ""
        name, first = self.second
        return name if row >= first else self.name

    def place(self, row: int) -> str:
        """Where a row stands, in words."""
        return ", ".join(filter(None, [self.file_of(row), f"row {self.row_numbers[row]}"]))

    @property
    def title(self) -> str:
        """What messages about all rows call the table."""
        return self.name if self.second is None else f"{self.name} and {self.second[0]}"


class Interner:
    """Numbers distinct strings in order of their first appearance."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.index: dict[str, int] = {}
        self.numbers(values)

    def number(self, value: str) -> int:
        """The number of one string, a new one if it was not seen before."""
        return self.index.setdefault(value, len(self.index))

    def numbers(self, values: Iterable[str]) -> np.ndarray:
        """The numbers of strings, int32 [n]."""
        return np.fromiter((self.number(value) for value in values), dtype=np.int32)

    def strings(self) -> list[str]:
        """The strings, by number."""
        return list(self.index)


def check_columns(source: str | Path | pd.DataFrame | None, wanted: Sequence[str]) -> None:
    """Raise a UsageError if a table lacks columns or has them twice; what is no table at all is told elsewhere."""
    if not wanted or source is None:
        return
    if not isinstance(source, (str, Path)):
        fault = columns_fault("the table", list(source.columns), wanted)
    elif file_fault(Path(source)) is None:
        fault = columns_fault(str(source), column_names(source), wanted)
    else:
        return
    if fault:
        raise UsageError(fault)


def read_table(
    dataset: str | Path | pd.DataFrame,
    input_col: str,
    target_cols: Sequence[str],
    language_col: str | None = None,
    language: str = "unk",
    progress: bool | None = None,
    group_col: str | None = None,
) -> Table:
    """Read what preparation needs of a CSV or Parquet file, or of a DataFrame, every value as text.

    Only empty cells and, in Parquet files and DataFrames, null values become empty strings; `nan` or `NA` in a CSV file
    stay words. Whole numbers in columns of floats keep a decimal (`61110.0`), so that nothing is decided here. Rows
    without any value are passed over.

    Parameters
    ----------
    dataset
        A file as `histocc.files.tables.read_chunks` takes it, or a DataFrame.
    input_col
        Column of the descriptions.
    target_cols
        The K code columns.
    language_col
        Column of the languages.
    language
        The language of every row where there is no such column.
    progress
        Show a progress bar; None: for large files.
    group_col
        Column of the groups that are to stay together.

    Raises
    ------
    UsageError
        If the file is missing, of another kind, not UTF-8, damaged or empty, or lacks a column.
    """
    wanted = [input_col, *target_cols, *(column for column in (language_col, group_col) if column is not None)]
    is_file = isinstance(dataset, (str, Path))
    name = Path(dataset).name if is_file else "the table"
    columns = column_names(dataset) if is_file else [str(column) for column in dataset.columns]
    reviewed = is_review(columns)
    if reviewed:
        wanted.append(CHECKED)
    if is_file:
        chunks = read_chunks(dataset, wanted, decimals=True, progress=progress)
    else:
        chunks = iter([_frame_chunk(dataset, wanted)])
    code_values, language_values, group_values = Interner(), Interner(), Interner()
    texts: list[str] = []
    codes: list[np.ndarray] = []
    languages: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    row_numbers: list[np.ndarray] = []
    empty_rows = unticked_rows = 0
    for chunk in chunks:
        if reviewed:
            ticked = [i for i, mark in enumerate(chunk[CHECKED].tolist()) if is_ticked(mark)]
            unticked_rows += len(chunk) - len(ticked)
            chunk = chunk.at(np.array(ticked, dtype=np.int64))
        texts += chunk[input_col].tolist()
        codes.append(np.stack([_renumber(chunk, column, code_values) for column in target_cols], axis=1))
        if language_col is not None:
            languages.append(_renumber(chunk, language_col, language_values))
        else:
            languages.append(np.full(len(chunk), language_values.number(language), dtype=np.int32))
        if group_col is not None:
            groups.append(_renumber(chunk, group_col, group_values))
        row_numbers.append(chunk.row_numbers)
        empty_rows += chunk.empty_rows
    if not texts:
        if unticked_rows:
            raise UsageError(f"no row of {name} is ticked in the column {CHECKED!r}: tick those whose codes are right")
        raise UsageError(f"{name} has a header but no rows: there is nothing to learn from")
    return Table(
        name=name,
        columns=columns,
        texts=texts,
        codes=np.concatenate(codes),
        code_values=code_values.strings(),
        languages=np.concatenate(languages),
        language_values=language_values.strings(),
        row_numbers=np.concatenate(row_numbers),
        empty_rows=empty_rows,
        unticked_rows=unticked_rows,
        groups=np.concatenate(groups) if group_col is not None else None,
        group_values=group_values.strings(),
    )


def join_tables(first: Table, second: Table) -> Table:
    """One table of the rows of two, without groups; it knows which row comes from which."""
    code_values, language_values = Interner(first.code_values), Interner(first.language_values)
    codes = code_values.numbers(second.code_values)[second.codes]
    languages = language_values.numbers(second.language_values)[second.languages]
    return Table(
        name=first.name,
        columns=first.columns,
        texts=first.texts + second.texts,
        codes=np.concatenate([first.codes, codes]),
        code_values=code_values.strings(),
        languages=np.concatenate([first.languages, languages]),
        language_values=language_values.strings(),
        row_numbers=np.concatenate([first.row_numbers, second.row_numbers]),
        empty_rows=first.empty_rows + second.empty_rows,
        unticked_rows=first.unticked_rows + second.unticked_rows,
        second=(second.name, len(first)),
    )


def read_column(path: str | Path, column: str | None, defaults: Sequence[str]) -> tuple[str, list[str]]:
    """The distinct values of one column of a CSV or Parquet file, in order of first appearance.

    Parameters
    ----------
    path
        The file.
    column
        The column's name; None takes the first of `defaults` that the file has, else its first column.
    defaults
        Names to look for.

    Returns
    -------
    tuple[str, list[str]]
        The name of the column that was read, and its values without the empty ones.
    """
    if column is None:
        names = column_names(path)
        column = next((name for name in defaults if name in names), names[0])
    chunks = read_chunks(path, [column], decimals=True, progress=False)
    seen = Interner(text for chunk in chunks for text in chunk[column].tolist() if text)
    return column, seen.strings()


def _renumber(chunk: Chunk, column: str, known: Interner) -> np.ndarray:
    """The numbers that `known` has for a column's texts, int32 [n]."""
    texts, numbers = chunk[column].distinct()
    return known.numbers(texts)[numbers]


def _frame_chunk(frame: pd.DataFrame, wanted: Sequence[str]) -> Chunk:
    check_columns(frame, wanted)
    columns = {name: TextCells(np.array(_texts(name, cells_of(frame[name])), dtype=object)) for name in wanted}
    chunk = Chunk(columns, np.arange(2, len(frame) + 2, dtype=np.int64))
    return chunk.without([i for i in chunk.blank().tolist() if not any(_has_value(v) for v in frame.iloc[i])])


def _texts(column: str, values: Sequence[Any]) -> list[str]:
    texts: list[str] = []
    try:
        for value in values:
            texts.append(as_text(value))  # their number tells the row of an error
    except UnicodeDecodeError as error:
        raise not_text(f"the table, column {column!r}, row {len(texts) + 2}", error) from None
    return texts


def _has_value(value: Any) -> bool:
    return bool(value) if isinstance(value, bytes) else bool(as_text(value).strip())
