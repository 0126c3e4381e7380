"""A user's table in memory: texts as they are, codes and languages as numbers of their distinct values."""

from __future__ import annotations

import csv
import difflib
import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.errors import Problems, UsageError

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 50_000
# Reading or writing fewer rows or bytes than this is over before a progress bar could be read.
PROGRESS_BYTES = 50_000_000
PROGRESS_ROWS = 1_000_000

PARQUET_SUFFIXES = {".parquet", ".pq"}
SPREADSHEET_SUFFIXES = {".xlsx", ".xls", ".xlsm", ".ods", ".dta", ".sav", ".sas7bdat", ".rds", ".rdata"}
# What a disk, and a compressed file that is cut off or damaged, can come up with.
READ_ERRORS = (OSError, EOFError, zlib.error)


@dataclass
class Table:
    """The columns that matter, of N rows with K code columns; rows in the order of the source.

    Attributes:
        name: what messages call the table.
        columns: the names of all columns of the source.
        texts: N descriptions; the empty string where there is none.
        codes: int32 [N, K], number of each cell's text in `code_values`.
        code_values: the distinct texts of all code cells; the empty string where there is none.
        languages: int32 [N], number of each row's language in `language_values`.
        language_values: the distinct languages.
        row_numbers: int64 [N], the rows as a spreadsheet numbers them: the header is row 1.
        empty_rows: how many rows without any value were passed over.
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

    def __len__(self) -> int:
        return len(self.texts)


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


@dataclass
class _Piece:
    """Some consecutive rows: texts, and per categorical column the distinct values and their numbers."""

    texts: list[str]
    columns: list[tuple[list[str], np.ndarray]]
    # Whether row i of the piece has a value in any column of the source.
    has_values: Callable[[int], bool]


def read_table(
    dataset: str | Path | pd.DataFrame,
    input_col: str,
    target_cols: Sequence[str],
    language_col: str | None = None,
    language: str = "unk",
    progress: bool | None = None,
) -> Table:
    """Read what preparation needs of a CSV or Parquet file, or of a DataFrame, every value as text.

    Only empty cells and, in Parquet files and DataFrames, null values become empty strings; `nan` or `NA` in a CSV file
    stay words. Whole numbers in columns of floats keep a decimal (`61110.0`), so that nothing is decided here. Rows
    without any value are passed over.

    Args:
        dataset: path of a `.csv` (also `.csv.gz`) or `.parquet` file, or a DataFrame.
        input_col: column of the descriptions.
        target_cols: the K code columns.
        language_col: column of the languages.
        language: the language of every row where there is no such column.
        progress: show a progress bar; None: for large files.

    Raises:
        UsageError: if the file is missing, of another kind, not UTF-8, damaged or empty, or lacks a column.
    """
    wanted = [input_col, *target_cols, *([language_col] if language_col is not None else [])]
    if isinstance(dataset, (str, Path)):
        path = Path(dataset)
        name = path.name
        _check_file(path)
        if path.suffix.lower() in PARQUET_SUFFIXES:
            columns, pieces = _parquet_pieces(path, wanted, progress)
        else:
            columns, pieces = _csv_pieces(path, wanted, progress)
    else:
        name = "the table"
        columns, pieces = _frame_pieces(dataset, wanted)
    return _gather(name, columns, pieces, len(target_cols), language)


def read_column(path: str | Path, column: str | None, defaults: Sequence[str]) -> tuple[str, list[str]]:
    """The distinct values of one column of a CSV or Parquet file, in order of first appearance.

    Args:
        path: the file.
        column: the column's name; None takes the first of `defaults` that the file has, else its first column.
        defaults: names to look for.

    Returns:
        The name of the column that was read, and its values without the empty ones.
    """
    path = Path(path)
    _check_file(path)
    is_parquet = path.suffix.lower() in PARQUET_SUFFIXES
    if column is None:
        names = _parquet_schema(path) if is_parquet else _csv_header(path)
        column = next((name for name in defaults if name in names), names[0])
    _, pieces = (_parquet_pieces if is_parquet else _csv_pieces)(path, [column], False)
    seen = Interner(text for piece in pieces for text in piece.texts if text)
    return column, seen.strings()


def _gather(name: str, columns: list[str], pieces: Iterator[_Piece], n_targets: int, language: str) -> Table:
    """Join the pieces of a table, and pass over its empty rows."""
    code_values, language_values = Interner(), Interner()
    texts: list[str] = []
    codes: list[np.ndarray] = []
    languages: list[np.ndarray] = []
    row_numbers: list[np.ndarray] = []
    rows_seen = 0
    for piece in pieces:
        n = len(piece.texts)
        targets = piece.columns[:n_targets]
        block = np.stack([code_values.numbers(values)[ids] for values, ids in targets], axis=1)
        if len(piece.columns) > n_targets:
            values, ids = piece.columns[n_targets]
            spoken = language_values.numbers(values)[ids]
        else:
            spoken = np.full(n, language_values.number(language), dtype=np.int32)
        rows = np.arange(rows_seen + 2, rows_seen + n + 2, dtype=np.int64)
        rows_seen += n

        blank = [np.array([not value.strip() for value in values])[ids] for values, ids in targets]
        without_code = np.flatnonzero(np.logical_and.reduce(blank))
        empty = [i for i in without_code.tolist() if not piece.texts[i].strip() and not piece.has_values(i)]
        if empty:
            keep = np.ones(n, dtype=bool)
            keep[empty] = False
            block, spoken, rows = block[keep], spoken[keep], rows[keep]
            texts.extend(text for text, kept in zip(piece.texts, keep.tolist()) if kept)
        else:
            texts.extend(piece.texts)
        codes.append(block)
        languages.append(spoken)
        row_numbers.append(rows)
    if not texts:
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
        empty_rows=rows_seen - len(texts),
    )


def file_fault(path: Path) -> str | None:
    """What keeps a path from being a table; None if nothing does as far as one can tell without reading it."""
    if path.is_dir():
        return f"{path} is a folder: name the table itself, a .csv or .parquet file"
    if not path.is_file():
        near = _close_names(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""
        return f"There is no file {path}{near}"
    if path.suffix.lower() in SPREADSHEET_SUFFIXES:
        return f"{path.name} is a {path.suffix} file: save it as CSV (in UTF-8) and name that file"
    return None


def _check_file(path: Path) -> None:
    fault = file_fault(path)
    if fault:
        raise UsageError(fault)


def _check_columns(name: str, columns: Sequence[str], wanted: Sequence[str]) -> None:
    problems = Problems()
    for column in dict.fromkeys(wanted):
        if column not in columns:
            problems.add(
                f"{name} has no column {column!r}{_close_names(column, columns)}; "
                f"its columns are: {', '.join(map(repr, columns))}"
            )
        elif list(columns).count(column) > 1:
            problems.add(f"{name} has {list(columns).count(column)} columns called {column!r}: rename all but one")
    problems.raise_if_any()


def _close_names(name: str, candidates: Iterable[str]) -> str:
    by_folded = {str(candidate).strip().casefold(): str(candidate) for candidate in candidates}
    close = difflib.get_close_matches(name.strip().casefold(), by_folded, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(by_folded[c]) for c in close)}?)" if close else ""


# --- CSV --------------------------------------------------------------------------------------------------------------


def _records(path: Path, errors: str = "strict") -> Iterator[list[str]]:
    """The records of a CSV file one by one: slow, for the header and for finding the row that is at fault."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", errors=errors, newline="") as text:
        yield from csv.reader(text)


def _csv_header(path: Path) -> list[str]:
    try:
        header = next(_records(path), None)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (csv.Error, *READ_ERRORS) as error:
        raise UsageError(f"{path.name} cannot be read as CSV: {error}") from None
    if header is None:
        raise UsageError(f"{path.name} is empty: it needs a header with column names, and rows")
    for separator, spoken in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:
            raise UsageError(
                f"The values in {path.name} are separated by {spoken} (its first row is {header[0]!r}): "
                f"save it with commas between the values"
            )
    return header


def _csv_pieces(path: Path, wanted: Sequence[str], progress: bool | None) -> tuple[list[str], Iterator[_Piece]]:
    header = _csv_header(path)
    _check_columns(path.name, header, wanted)
    return header, _iterate_csv(path, header, [header.index(column) for column in wanted], progress)


def _iterate_csv(path: Path, header: list[str], wanted: list[int], progress: bool | None) -> Iterator[_Piece]:
    import pandas as pd
    from tqdm import tqdm

    size = path.stat().st_size
    try:
        with (
            path.open("rb") as raw,
            gzip.open(raw) if path.suffix.lower() == ".gz" else nullcontext(raw) as source,
            tqdm(
                total=size,
                desc=f"Reading {path.name}",
                unit="B",
                unit_scale=True,
                disable=size < PROGRESS_BYTES if progress is None else not progress,
            ) as bar,
            pd.read_csv(
                source,
                header=None,
                skiprows=1,
                # One column more: pandas 2 passes over what is too much in the first row of a chunk.
                names=list(range(len(header) + 1)),
                # Not "category", which makes numbers of codes and so loses their leading zeros (pandas 3).
                dtype=object,
                na_filter=False,
                skip_blank_lines=False,
                chunksize=CHUNK_ROWS,
                encoding="utf-8",
            ) as chunks,
        ):
            for chunk in chunks:
                # A longer first row makes pandas take the first values for row names.
                if not isinstance(chunk.index, pd.RangeIndex) or "".join(set(chunk[len(header)])).strip():
                    raise _too_many_values(path, len(header))
                yield _Piece(
                    texts=chunk[wanted[0]].tolist(),
                    columns=[_distinct(chunk[column]) for column in wanted[1:]],
                    has_values=lambda i, chunk=chunk: any(str(value).strip() for value in chunk.iloc[i]),
                )
                bar.update(raw.tell() - bar.n)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except pd.errors.EmptyDataError:
        return  # a header without rows
    except pd.errors.ParserError as error:
        if "EOF inside string" in str(error):
            raise UsageError(
                f"{path.name} ends inside a quoted text: a quotation mark is opened and never closed. "
                f"Save the table as CSV from a spreadsheet or statistics program, which doubles the marks in a text"
            ) from None
        if "Expected" in str(error):
            raise _too_many_values(path, len(header)) from None
        raise UsageError(f"{path.name} cannot be read as CSV: {error}") from None
    except READ_ERRORS as error:
        raise UsageError(f"{path.name} cannot be read as CSV: {error}") from None


def _distinct(column: pd.Series) -> tuple[list[str], np.ndarray]:
    """The distinct values of a column, as text and with the empty string for nulls, and the number of each cell's."""
    import pandas as pd

    numbers, values = pd.factorize(column)
    texts = [*map(as_text, values.tolist()), ""]
    return texts, np.where(numbers < 0, len(texts) - 1, numbers)


def _not_utf8(path: Path) -> UsageError:
    where = ""
    for number, record in enumerate(_records(path, errors="surrogateescape"), start=1):
        cell = next((cell for cell in record if any("\udc80" <= char <= "\udcff" for char in cell)), None)
        if cell is not None:
            raw = cell.encode("utf-8", errors="surrogateescape")
            where = f": row {number} holds {raw.decode('latin-1')!r} in another encoding"
            break
    return UsageError(
        f"{path.name} is not in UTF-8{where}. Save it as CSV in UTF-8 "
        f"(in Excel: 'CSV UTF-8'; in R: fileEncoding = \"UTF-8\"; in Stata: export delimited)"
    )


def _too_many_values(path: Path, width: int) -> UsageError:
    longer = [(n, record) for n, record in enumerate(_records(path, errors="replace"), start=1) if len(record) > width]
    # Commas at the end of a row are the smaller evil: shown only where they are all there is.
    found = [(n, record) for n, record in longer if any(cell.strip() for cell in record[width:])] or longer
    number, record = found[0]
    return UsageError(
        f"{path.name} has rows with more values than its header, which names {width} columns: {len(found)} of them, "
        f"first row {number} with {len(record)} values ({','.join(record)!r}). "
        f"Put texts that contain a comma in double quotes"
    )


# --- Parquet and DataFrames -------------------------------------------------------------------------------------------


def _parquet_file(path: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UsageError(f"Reading {path.name} needs pyarrow (pip install pyarrow); or save the table as CSV") from None
    try:
        return ParquetFile(path)
    except (ArrowInvalid, OSError) as error:
        raise UsageError(f"{path.name} cannot be read as Parquet: {error}") from None


def _parquet_schema(path: Path) -> list[str]:
    return list(_parquet_file(path).schema_arrow.names)


def _parquet_pieces(path: Path, wanted: Sequence[str], progress: bool | None) -> tuple[list[str], Iterator[_Piece]]:
    file = _parquet_file(path)
    columns = list(file.schema_arrow.names)
    _check_columns(path.name, columns, wanted)
    return columns, _iterate_parquet(file, path.name, wanted, progress)


def _iterate_parquet(file: Any, name: str, wanted: Sequence[str], progress: bool | None) -> Iterator[_Piece]:
    from tqdm import tqdm

    rows = file.metadata.num_rows
    with tqdm(
        total=rows,
        desc=f"Reading {name}",
        unit=" rows",
        disable=rows < PROGRESS_ROWS if progress is None else not progress,
    ) as bar:
        for batch in file.iter_batches(CHUNK_ROWS, columns=list(dict.fromkeys(wanted))):
            columns = []
            for column in wanted[1:]:
                encoded = batch.column(column)
                if not hasattr(encoded, "dictionary"):
                    encoded = encoded.dictionary_encode()
                # One more value for the nulls, which have no number of their own.
                values = [*map(as_text, encoded.dictionary.to_pylist()), ""]
                numbers = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
                columns.append((values, numbers))
            yield _Piece(
                texts=[as_text(value) for value in batch.column(wanted[0]).to_pylist()],
                columns=columns,
                # Files of this kind have no blank lines, so a row without text and code is a row with a fault.
                has_values=lambda i: True,
            )
            bar.update(batch.num_rows)


def _frame_pieces(frame: pd.DataFrame, wanted: Sequence[str]) -> tuple[list[str], Iterator[_Piece]]:
    _check_columns("the table", list(frame.columns), wanted)
    piece = _Piece(
        texts=[as_text(value) for value in frame[wanted[0]].tolist()],
        columns=[_distinct(frame[column]) for column in wanted[1:]],
        has_values=lambda i: any(as_text(value).strip() for value in frame.iloc[i]),
    )
    return [str(column) for column in frame.columns], iter([piece])


def as_text(value: Any) -> str:
    """A cell's text; the empty string for a null value. Whole floats keep one decimal: `61110.0`."""
    if isinstance(value, str):
        return value
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.1f}"
    return str(value)
