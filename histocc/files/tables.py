"""Tables on disk: CSV and Parquet as chunks of text, and what is wrong with a file that cannot be read as one."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import math
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from histocc.errors import UsageError, did_you_mean
from histocc.files import console
from histocc.files.csv_lines import csv_records
from histocc.files.entries import shown
from histocc.files.ordinary import IS_MISSING, fault_of_file, near_names

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

CHUNK_ROWS = 50_000
# Smaller files are read before a progress bar could be.
PROGRESS_BYTES = 50_000_000

PARQUET_SUFFIXES = {".parquet", ".pq"}
FOREIGN_SUFFIXES = {".xlsx", ".xls", ".xlsm", ".ods", ".dta", ".sav", ".sas7bdat", ".rds", ".rdata", ".zip"}
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# What a disk, and a compressed file that is cut off or damaged, can come up with.
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)

# What stands between values instead of commas, and how it is called.
_SEPARATORS = {";": "semicolons", "\t": "tabs"}

# Columns beyond those of the header that are read to find values in them. A value further out is found where it is the
# only one of its row, so that no row is taken for an empty one.
SPARE_COLUMNS = 2
_MOST_COLUMNS_LISTED, _MOST_SHOWN = 20, 200


class TextCells:
    """A column of some rows, which are text already."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def tolist(self) -> list[str]:
        """The text of each row; the empty string where there is nothing."""
        return self._values.tolist()

    def distinct(self) -> tuple[list[str], np.ndarray]:
        """The distinct texts in order of appearance, and the number of each row's, int64 [n]."""
        import pandas as pd

        numbers, texts = pd.factorize(self._values)
        return texts.tolist(), numbers

    def take(self, rows: np.ndarray) -> TextCells:
        """The column of some of the rows."""
        return TextCells(self._values[rows])


class ArrowCells:
    """A column of some rows as pyarrow has it; otherwise like `TextCells`.

    Parameters
    ----------
    values
        A pyarrow array.
    row_numbers
        int64 [n], for messages.
    source
        File and column in words, for messages.
    decimals
        Whether whole floats keep a decimal.

    Raises
    ------
    UsageError
        From each method: a cell holds bytes that are no text in UTF-8.
    """

    def __init__(self, values: Any, row_numbers: np.ndarray, source: str, decimals: bool) -> None:
        self._values = values
        self._row_numbers = row_numbers
        self._source = source
        self._decimals = decimals

    def tolist(self) -> list[str]:
        """As for `TextCells`."""
        return self._texts(self._values)

    def take(self, rows: np.ndarray) -> ArrowCells:
        """As for `TextCells`."""
        return ArrowCells(self._values.take(rows), self._row_numbers[rows], self._source, self._decimals)

    def distinct(self) -> tuple[list[str], np.ndarray]:
        """As for `TextCells`."""
        import pandas as pd

        encoded = self._values if hasattr(self._values, "dictionary") else self._values.dictionary_encode()
        # One more for the nulls; and the dictionary of a file may have values in another order, or that no row has.
        null = len(encoded.dictionary)
        # Indices of eight bits may have no room for it.
        indices = encoded.indices.cast("int64").fill_null(null)
        numbers, present = pd.factorize(indices.to_numpy(zero_copy_only=False))
        texts = iter(self._texts(encoded.dictionary.take(present[present != null])))
        return ["" if i == null else next(texts) for i in present.tolist()], numbers

    def _texts(self, values: Any) -> list[str]:
        try:
            return [as_text(value, self._decimals) for value in values.to_pylist()]
        except UnicodeDecodeError as error:
            bad = next(i for i, cell in enumerate(self._values) if _is_no_text(cell))
            raise not_text(f"{self._source}, row {self._row_numbers[bad]}", error) from None


@dataclass
class Chunk:
    """Consecutive rows of a table, by column.

    Attributes
    ----------
    columns
        The cells of each column.
    row_numbers
        int64 [n], where the rows stand in the file: the header is row 1, and blank lines count.
    empty_rows
        How many rows were left out among them because they have no value in any column of the file.
    """

    columns: Mapping[str, TextCells | ArrowCells]
    row_numbers: np.ndarray
    empty_rows: int = 0

    def __len__(self) -> int:
        return len(self.row_numbers)

    def __getitem__(self, column: str) -> TextCells | ArrowCells:
        return self.columns[column]

    def blank(self) -> np.ndarray:
        """Positions of the rows that have no value in any of `columns`, int64 [m]."""
        rows = None
        for cells in self.columns.values():
            texts = cells.tolist()
            if rows is None:
                # Mostly all texts of the first column are there, and one pass in C says so.
                rows = [] if all(map(str.strip, texts)) else [i for i, text in enumerate(texts) if not text.strip()]
            else:
                rows = [i for i in rows if not texts[i].strip()]
            if not rows:
                break
        return np.array(rows or [], dtype=np.int64)

    def at(self, rows: np.ndarray) -> Chunk:
        """The chunk of the rows at some positions alone."""
        columns = {name: cells.take(rows) for name, cells in self.columns.items()}
        return Chunk(columns, self.row_numbers[rows], self.empty_rows)

    def without(self, rows: Sequence[int] | np.ndarray) -> Chunk:
        """The chunk after empty rows at some positions are left out; only for `TextCells`."""
        if not len(rows):
            return self
        kept = np.delete(np.arange(len(self)), rows)
        columns = {name: cells.take(kept) for name, cells in self.columns.items()}
        return Chunk(columns, self.row_numbers[kept], self.empty_rows + len(rows))


def read_chunks(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    *,
    decimals: bool = False,
    progress: bool | None = None,
    keep_empty_rows: bool = False,
) -> Iterator[Chunk]:
    """Some columns of a CSV or Parquet file as text, at most `CHUNK_ROWS` rows at a time.

    Only empty cells and, in Parquet files, nulls become empty strings; `nan` or `NA` stay words. Rows of a CSV file
    without any value, such as blank lines, are left out.

    Parameters
    ----------
    path
        A `.parquet` file, or a CSV file in UTF-8 with commas, which may be compressed (`.gz`, `.bz2`, `.xz`).
    columns
        Names of the columns.
    decimals
        Keep a decimal in whole numbers of a Parquet file's columns of floats (`61110.0`).
    progress
        Show a progress bar; None: for large files where somebody is watching.
    keep_empty_rows
        Give the rows of a CSV file without any value as well.

    Raises
    ------
    UsageError
        If the file is missing, of another kind, not UTF-8 or damaged, lacks a column, or has rows with more
        values than its header.
    """
    path = Path(path)
    names = column_names(path)
    fault = columns_fault(str(path), names, columns)
    if fault:
        raise UsageError(fault)
    if _is_parquet(path):
        yield from _parquet_chunks(path, columns, decimals, progress)
    else:
        yield from _csv_chunks(path, names, columns, progress, keep_empty_rows)


def column_names(path: str | os.PathLike[str]) -> list[str]:
    """The names of a file's columns; `UsageError` if it cannot be read."""
    path = Path(path)
    fault = file_fault(path)
    if fault:
        raise UsageError(fault)
    if not _is_parquet(path):
        return _csv_header(path)
    try:
        return list(_parquet_file(path).schema_arrow.names)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is damaged: the name of a column is {error.object[:40]!r}, which is no text in UTF-8; "
            "save the table again"
        ) from None


def peek(path: str | os.PathLike[str]) -> tuple[list[str], bool]:
    """Column names of a file and whether it has rows; `UsageError` if it cannot be read."""
    path = Path(path)
    names = column_names(path)
    if _is_parquet(path):
        return names, _parquet_file(path).metadata.num_rows > 0
    return names, any(any(map(str.strip, record)) for number, record in _records(path) if number > 1)


def values_too_many(path: str | os.PathLike[str], rows: Collection[int]) -> dict[int, str]:
    """Which of some rows of a CSV file have more values than its header, empty ones too, and what that may mean.

    Empty values at the end of a row do no harm by themselves; where a row has a fault besides, they may tell why.
    """
    path, found = Path(path), {}
    if _is_parquet(path) or not rows:
        return found
    last, width = max(rows), 0
    for number, record in _records(path):
        if number == 1:
            width = len(record)
        elif number in rows and len(record) > width:
            found[number] = (
                f"the row has {len(record)} values under {width} column names: is there a comma in a text that is not "
                "in double quotes?"
            )
        if number >= last:
            break
    return found


def file_fault(path: Path) -> str | None:
    """What keeps a path from being a table; None if nothing does as far as one can tell without reading it."""
    fault = fault_of_file(path)
    if fault == IS_MISSING:
        return f"There is no file {path}{near_names(path)}{by_blanks(path)}"
    if fault is not None:
        return f"{path} {fault}: name the table itself, a .csv or .parquet file"
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        return f"{path} is a {path.suffix} file: save it as CSV (in UTF-8) and name that file"
    return None


def by_blanks(path: Path) -> str:
    """What to say where a name is those of several files with commas between them; '' where it is not."""
    parts = [part.strip() for part in str(path).split(",")]
    if len(parts) == 1 or not all(part and os.path.exists(part) for part in parts):
        return ""
    return f": separate files by blanks ({' '.join(parts)})"


def columns_fault(
    name: str,
    columns: Sequence[str],
    wanted: Iterable[str],
    advice: str = "Rename columns in the table, or name those that it has",
    *,
    like_it: Sequence[str] = (),
) -> str | None:
    """What keeps a table called `name` from giving the wanted columns: those that it lacks or has twice.

    `like_it` names further tables that lack the same columns; those that they have may be others.
    """
    wanted = list(dict.fromkeys(wanted))
    missing = [column for column in wanted if column not in columns]
    faults = []
    if missing:
        free = [column for column in columns if column not in wanted]
        what = ", ".join(
            f"{column!r}{_given_apart(column, columns) or did_you_mean(column, free)}" for column in missing
        )
        there = ", ".join(map(shown, columns[:_MOST_COLUMNS_LISTED])) + ", ..." * (len(columns) > _MOST_COLUMNS_LISTED)
        column = f"no column{'s' * (len(missing) > 1)} {what}"
        if like_it:
            names = ", ".join((name, *like_it[:-1])) + f" and {like_it[-1]}"
            faults.append(f"{names} have {column}; the columns of the first are: {there}. {advice}")
        else:
            faults.append(f"{name} has {column}; its columns are: {there}. {advice}")
    for column in wanted:
        times = list(columns).count(column)
        if times > 1:
            faults.append(f"{name} has {times} columns called {column!r}: rename all but one")
    return "\n".join(faults) or None


def _given_apart(name: str, columns: Sequence[str]) -> str:
    """A note on a name that is the names of several columns with commas between them; else ''."""
    parts = [part.strip() for part in str(name).split(",")]
    if len(parts) < 2 or not all(part in columns for part in parts):
        return ""
    quoted = " ".join(f'"{part}"' for part in parts)
    return f" (separate names by blanks: {quoted})"


def as_text(value: Any, decimals: bool = True) -> str:
    """A cell's text; the empty string for a null. Whole floats keep one decimal (`61110.0`), or none (`61110`).

    Raises UnicodeDecodeError for bytes that are no text in UTF-8; `not_text` makes a message of it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if not isinstance(value, np.ndarray) and value != value:
        return ""
    if isinstance(value, (float, np.floating, Decimal)) and math.isfinite(value) and value == int(value):
        return f"{value:.1f}" if decimals else str(int(value))
    return str(value)


def cells_of(column: pd.Series) -> list[Any]:
    """The cells of a column of a DataFrame, for `as_text`."""
    if column.dtype.kind == "f" and column.dtype.itemsize == 4:
        # As Python's floats, 7.1 would be 7.099999904632568.
        return list(column.to_numpy(np.float32, na_value=np.nan))
    return column.tolist()


def not_text(place: str, error: UnicodeDecodeError) -> UsageError:
    """What to raise where bytes at some place of a table are no text."""
    return UsageError(f"{place}: the bytes {error.object[:40]!r} are no text in UTF-8; save the column as text")


def _is_no_text(cell: Any) -> bool:
    try:
        as_text(cell.as_py())
    except UnicodeDecodeError:
        return True
    return False


def _progress_bar(path: Path, progress: bool | None, total: int, unit: str) -> tqdm:
    from tqdm import tqdm

    if progress is None:
        watched = console.is_watched() and os.environ.get("RANK", "0") == "0"
        progress = watched and path.stat().st_size >= PROGRESS_BYTES
    return tqdm(total=total, desc=f"Reading {path.name}", unit=unit, unit_scale=True, disable=not progress)


# --- CSV --------------------------------------------------------------------------------------------------------------


def _opened(path: Path, raw: IO[bytes]) -> IO[bytes]:
    opener = OPENERS.get(path.suffix.lower())
    return raw if opener is None else opener(raw)


def _open_text(path: Path, raw: IO[bytes], errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(_opened(path, raw), "utf-8-sig", errors, newline="")


def _records(path: Path, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file with their row numbers, one by one: slow, for the header and for rows in question."""
    number = 0
    try:
        with path.open("rb") as raw, _open_text(path, raw, errors) as text:
            for number, record in enumerate(csv_records(text), start=1):
                yield number, record
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except csv.Error as error:
        raise UsageError(f"{path}, row {number + 1}: cannot be read as CSV: {error}") from None
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None


def _csv_header(path: Path) -> list[str]:
    _, header = next(_records(path), (0, None))
    if header is None:
        raise UsageError(f"{path} is empty: it needs a header with column names, and rows")
    if not any(map(str.strip, header)):
        raise UsageError(
            f"Row 1 of {path} is empty: the names of the columns must stand there; delete what is above them"
        )
    if header[0].lower().startswith("sep="):
        raise UsageError(
            f"Row 1 of {path} is {shown(','.join(header))}, a note to Excel and no column name: delete this row"
        )
    if _separator(header) is not None:
        try:
            for _ in _records(path):
                pass
        except UsageError as error:
            if isinstance(error.__context__, UnicodeDecodeError):
                raise error from None  # it names both faults
        raise _other_separator(path, header)
    return header


def _separator(header: Sequence[str]) -> str | None:
    """What stands between the values where it is no comma; None where it is one."""
    if len(header) != 1:
        return None
    return next((separator for separator in _SEPARATORS if separator in header[0]), None)


def _other_separator(path: Path, header: Sequence[str], not_utf8: str | None = None) -> UsageError:
    """What to say of a table with another separator; `not_utf8` says where it is not in UTF-8, if it is not."""
    separator = _separator(header)
    fault, remedy, encoding = "", "", ""
    if not_utf8 is not None:
        fault, remedy = f", and it is not in UTF-8{not_utf8}", " and in UTF-8"
        encoding = f"encoding={_encoding(path)!r}, "
    return UsageError(
        f"The values in {path} are separated by {_SEPARATORS[separator]} (its first row is {shown(header[0])}){fault}: "
        f"save it with commas between the values{remedy} (in Python: pandas.read_csv({path.name!r}, sep={separator!r}, "
        f"{encoding}dtype=str, keep_default_na=False).to_csv('commas.csv', index=False))"
    )


def _encoding(path: Path) -> str:
    """The encoding that a file with single bytes for letters is most likely in."""
    try:
        with path.open("rb") as raw, io.TextIOWrapper(_opened(path, raw), "cp1252", newline="") as text:
            while text.read(2**20):
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


class _WithHeader:
    """The rest of a text file under a header of our own, as pandas reads it."""

    def __init__(self, header: str, rest: IO[str]) -> None:
        self._header = header
        self._rest = rest

    def read(self, size: int = -1) -> str:
        header, self._header = self._header, ""
        return header or self._rest.read(size)

    def __iter__(self) -> Iterator[str]:  # what pandas takes for a file must have it
        raise NotImplementedError


def _csv_chunks(
    path: Path, header: list[str], columns: Sequence[str], progress: bool | None, keep_empty_rows: bool
) -> Iterator[Chunk]:
    import pandas as pd

    width = len(header)
    numbered = ",".join(map(str, range(width + SPARE_COLUMNS))) + "\n"
    position = {name: header.index(name) for name in columns}
    spare = range(width, width + SPARE_COLUMNS)
    records = _records(path)
    next_row = 2
    try:
        with (
            path.open("rb") as raw,
            _open_text(path, raw) as text,
            _progress_bar(path, progress, path.stat().st_size, "B") as bar,
        ):
            next(csv_records(text))
            # A header that names spare columns makes pandas give what is too much in a row, and no row an index.
            with pd.read_csv(
                _WithHeader(numbered, text),
                usecols=[*position.values(), *spare],
                index_col=False,
                # Not "category", which makes numbers of codes and so loses their leading zeros (pandas 3).
                dtype=object,
                na_filter=False,
                skip_blank_lines=False,
                low_memory=False,
                chunksize=CHUNK_ROWS,
            ) as frames:
                for frame in frames:
                    # Nearly always all are empty, and `any` says so much sooner than a look at each.
                    if any(any(c := frame[str(i)].tolist()) and "".join(c).strip() for i in spare):
                        raise _too_many_values(path, width)
                    cells = {name: TextCells(frame[str(i)].to_numpy()) for name, i in position.items()}
                    chunk = Chunk(cells, np.arange(next_row, next_row + len(frame), dtype=np.int64))
                    next_row += len(frame)
                    blank = np.zeros(0, dtype=np.int64) if keep_empty_rows else chunk.blank()
                    if len(blank):
                        # Columns that are not read may hold values, and so may places beyond the header.
                        empty = _empty(records, set(chunk.row_numbers[blank].tolist()), path, width)
                        blank = blank[np.isin(chunk.row_numbers[blank], empty)]
                    yield chunk.without(blank)
                    bar.update(raw.tell() - bar.n)
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except pd.errors.ParserError as error:
        raise _not_csv(path, error) from None
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None


def _empty(records: Iterator[tuple[int, list[str]]], rows: Collection[int], path: Path, width: int) -> list[int]:
    """Which rows have no value at all; `records`, which stand before the first of them, are read up to the last."""
    last = max(rows)
    empty = []
    for number, record in records:
        if number in rows:
            if any(map(str.strip, record[width:])):
                raise _too_many_values(path, width)
            if not any(map(str.strip, record)):
                empty.append(number)
        if number == last:
            break
    return empty


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


def _not_utf8(path: Path) -> UsageError:
    where = ""
    header: list[str] = []
    # The characters of UTF-16 are rows to nobody: Python 3.10 refuses to split them.
    with contextlib.suppress(UsageError):
        for number, record in _records(path, errors="surrogateescape"):
            header = header or record
            cell = next((cell for cell in record if any("\udc80" <= char <= "\udcff" for char in cell)), None)
            if cell is not None:
                spelt = cell.encode("utf-8", errors="surrogateescape").decode("latin-1")
                where = f": row {number} holds {shown(spelt)} in another encoding"
                break
    header = [name.encode("utf-8", errors="surrogateescape").decode("latin-1") for name in header]
    if _separator(header) is not None and "\0" not in header[0]:
        return _other_separator(path, header, where)
    return UsageError(
        f"{path} is not in UTF-8{where}. Save it as CSV in UTF-8 "
        f"(in Excel: 'CSV UTF-8'; in R: fileEncoding = \"UTF-8\"; in Stata: export delimited)"
    )


def _not_csv(path: Path, error: Exception) -> UsageError:
    unclosed = re.search(r"EOF inside string starting at row (\d+)", str(error))
    if unclosed is None:
        return UsageError(f"{path} cannot be read as CSV: {error}")
    return UsageError(
        f"{path} ends inside a quoted text: a quotation mark is opened in row {int(unclosed[1]) + 1} and never closed. "
        "Save the table as CSV from a spreadsheet or statistics program, which doubles the marks in a text"
    )


def _too_many_values(path: Path, width: int) -> UsageError:
    # Commas at the end of a row do no harm.
    found = [(n, record) for n, record in _records(path, errors="replace") if any(map(str.strip, record[width:]))]
    number, record = found[0]
    advice = "Put texts that contain a comma in double quotes"
    lines = 1 + max(cell.count("\n") for cell in record)
    if lines > 1:
        advice = f"A value in it is of {lines:,} lines: perhaps a quotation mark is opened in this row and never closed"
    spelt = ",".join(record)
    spelt = spelt[:_MOST_SHOWN] + "..." * (len(spelt) > _MOST_SHOWN)
    return UsageError(
        f"{path} has rows with more values than its header, which names {width} columns: {len(found):,} of them, first "
        f"row {number} with {len(record)} values ({spelt!r}). {advice}"
    )


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in PARQUET_SUFFIXES


def _parquet_file(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(
            f"Reading {path} needs pyarrow: run `pip install 'histocc[parquet]'`, or save the table as CSV"
        ) from error
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {error}") from None


def _parquet_chunks(path: Path, columns: Sequence[str], decimals: bool, progress: bool | None) -> Iterator[Chunk]:
    file = _parquet_file(path)
    from pyarrow import ArrowException

    nested = [name for name in columns if file.schema_arrow.field(name).type.num_fields]
    if nested:
        raise UsageError(f"{path} holds several values in a cell of column {nested[0]!r}: spread them over columns")
    next_row = 2
    try:
        with _progress_bar(path, progress, file.metadata.num_rows, " rows") as bar:
            for batch in file.iter_batches(CHUNK_ROWS, columns=list(dict.fromkeys(columns))):
                rows = np.arange(next_row, next_row + batch.num_rows, dtype=np.int64)
                cells = {
                    name: ArrowCells(_common(batch.column(name)), rows, f"{path}, column {name!r}", decimals)
                    for name in columns
                }
                # There are no blank lines in such a file: a row without a text and a code is one with a fault.
                yield Chunk(cells, rows)
                next_row += batch.num_rows
                bar.update(batch.num_rows)
    except (ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {error}") from None


def _common(values: Any) -> Any:
    """A pyarrow array in a type for which pyarrow has all that `ArrowCells` asks for, numbers as they were written."""
    values = getattr(values, "storage", values)  # of an extension type
    kind = str(values.type)
    if kind == "float":
        # The decimals of 32 bits; as Python's floats, 7.1 would be 7.099999904632568.
        return values.cast("string").cast("float64")
    wider = {"string_view": "large_string", "binary_view": "large_binary"}.get(kind)
    return values if wider is None else values.cast(wider)
