"""Writing a table with its predictions: every row of the input, in order, its columns untouched."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from histocc.files.atomic import write_atomically
from histocc.files.spreadsheet_text import marked_text
from histocc.files.tables import CHUNK_ROWS, PARQUET_SUFFIXES, read_chunks
from histocc.prediction.coder import Coded
from histocc.prediction.pairs import NO_TEXT

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow


def new_columns(
    coded: Coded, method: str, descriptions: Mapping[str, str] | None = None, *, for_spreadsheets: bool = False
) -> dict[str, np.ndarray]:
    """The columns that predictions add to a table: code_1, ..., desc_1, ..., confidence, alternatives, method.

    Parameters
    ----------
    coded
        Predictions for P distinct pairs.
    method
        How they were made.
    descriptions
        Description of each code, for columns `desc_1`, ...; None adds none.
    for_spreadsheets
        Mark codes as text, so that a spreadsheet keeps their leading zeros.

    Returns
    -------
    dict[str, np.ndarray]
        Each column's values for the P pairs, [P + 1]; the last is that of a row without a text.
    """
    pairs, alternatives, places = coded.codes.shape
    columns: dict[str, np.ndarray] = {}
    for i in range(places):
        columns[f"code_{i + 1}"] = _texts(coded.codes[:, 0, i].tolist(), marked=for_spreadsheets)
    if descriptions is not None:
        for i in range(places):
            columns[f"desc_{i + 1}"] = _texts([descriptions.get(code, "") for code in coded.codes[:, 0, i].tolist()])
    columns["confidence"] = _numbers(coded.confidence[:, 0])
    for a in range(1, alternatives):
        columns[f"alternative_{a + 1}"] = _texts(["&".join(codes) for codes in coded.sets(a)], marked=for_spreadsheets)
        columns[f"confidence_{a + 1}"] = _numbers(coded.confidence[:, a])
    columns["method"] = _texts([method] * pairs)
    return columns


def _numbers(values: np.ndarray) -> np.ndarray:
    return np.append(values, np.nan).round(6)


def _texts(values: Sequence[str], marked: bool = False) -> np.ndarray:
    array = np.empty(len(values) + 1, dtype=object)
    array[:-1] = [marked_text(value) if value else "" for value in values] if marked else values
    array[-1] = ""
    return array


def is_parquet(path: Path) -> bool:
    """Whether a file of this name is Parquet, rather than CSV."""
    return path.suffix.lower() in PARQUET_SUFFIXES


def write_predictions(
    source: Path,
    target: Path,
    columns: Sequence[str],
    pair_of_row: np.ndarray,
    added: Mapping[str, np.ndarray],
    *,
    for_spreadsheets: bool = False,
) -> None:
    """Write the table with its predictions; the file appears when it is whole.

    Parameters
    ----------
    source, target
        The table, and the file to write: CSV, or Parquet by its ending. From Parquet to Parquet all columns keep their
        types.
    columns
        Columns of the table to keep.
    pair_of_row
        Pair of each row, integers [rows]; `NO_TEXT` where a row has no text.
    added
        What to add, from `new_columns`.
    for_spreadsheets
        Mark the file as UTF-8, which spreadsheets go by.

    Raises
    ------
    OSError
        The file cannot be written; what was there before stays.
    """
    if is_parquet(target):
        write_atomically(target, lambda file: _write_parquet(source, file, columns, pair_of_row, added))
    else:
        write_atomically(target, lambda file: _write_csv(source, file, columns, pair_of_row, added, for_spreadsheets))


def _added_chunks(pair_of_row: np.ndarray, added: Mapping[str, np.ndarray]) -> Callable[[int], dict[str, np.ndarray]]:
    """Gives the new columns of the next `rows` rows."""
    place = 0

    def following(rows: int) -> dict[str, np.ndarray]:
        nonlocal place
        numbers = np.asarray(pair_of_row[place : place + rows])
        place += rows
        # The values of a row without a text stand last, where the index -1 finds them.
        assert NO_TEXT == -1
        return {name: values[numbers] for name, values in added.items()}

    return following


def _write_csv(
    source: Path,
    file: IO[bytes],
    columns: Sequence[str],
    pair_of_row: np.ndarray,
    added: Mapping[str, np.ndarray],
    with_mark: bool,
) -> None:
    import pandas as pd

    following = _added_chunks(pair_of_row, added)
    text = io.TextIOWrapper(file, encoding="utf-8-sig" if with_mark else "utf-8", newline="", write_through=True)
    pd.DataFrame(columns=[*columns, *added]).to_csv(text, index=False, lineterminator="\n")
    for frame in _frames(source, columns):
        for name, values in following(len(frame)).items():
            frame[name] = values
        # Python before 3.13 leaves a lone carriage return bare, which would be read back as the end of the row.
        bare = any("\r" in "".join(frame[name]) for name in columns)
        quoting = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
        frame.to_csv(text, index=False, header=False, lineterminator="\n", quoting=quoting)
    text.flush()
    text.detach()


def _frames(source: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The rows to keep of the table as text, chunk by chunk."""
    import pandas as pd

    for chunk in read_chunks(source, columns, keep_empty_rows=True):
        yield pd.DataFrame({name: pd.Series(chunk[name].tolist(), dtype=object) for name in columns})


def _write_parquet(
    source: Path, file: IO[bytes], columns: Sequence[str], pair_of_row: np.ndarray, added: Mapping[str, np.ndarray]
) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    following = _added_chunks(pair_of_row, added)
    writer: Any = None
    try:
        for table in _arrow_tables(source, columns):
            for name, values in following(table.num_rows).items():
                is_number = values.dtype != object
                array = pa.array(values, pa.float64() if is_number else pa.string(), from_pandas=True)
                table = table.append_column(name, array)
            writer = writer or ParquetWriter(file, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _arrow_tables(source: Path, columns: Sequence[str]) -> Iterator[pyarrow.Table]:
    """The rows to keep of the table, chunk by chunk: with their types where the table has such, else as text."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    if is_parquet(source):
        for batch in ParquetFile(source).iter_batches(CHUNK_ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch]).select(list(columns))
        return
    for chunk in read_chunks(source, columns, keep_empty_rows=True):
        yield pa.table({name: pa.array(chunk[name].tolist(), pa.string()) for name in columns})
