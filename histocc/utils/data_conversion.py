"""CSV tables to Parquet files, under OCCPAST's names; the data sets read either."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histocc.datasets import CODE_COLUMNS
from histocc.errors import Problems, UsageError
from histocc.files.atomic import write_atomically
from histocc.files.tables import column_names, read_chunks
from histocc.formatter.systems import SYSTEMS

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = ("occ1", "lang")


def convert_csv_to_parquet(
    csv_path: str | os.PathLike[str],
    parquet_path: str | os.PathLike[str] | None = None,
    dtype_overrides: Mapping[str, Any] | None = None,
    converters: Mapping[str, Callable[[str], Any]] | None = None,
) -> Path:
    """Write a CSV file as a Parquet file.

    Descriptions and languages stay text in every spelling, `NA` and `nan` too; so does every column that is not
    named in `dtype_overrides` or `converters`. An empty cell of a column that is not text is missing.

    Parameters
    ----------
    csv_path
        The table, in UTF-8 with commas.
    parquet_path
        The file to write; by default beside the table, ending in `.parquet`. It is replaced if it is there.
    dtype_overrides
        pandas' dtype of columns that are not to be text; names of other tables' columns do no harm.
    converters
        What to make of the text of a cell, by column; wins over `dtype_overrides`.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    UsageError
        pyarrow is missing, the table cannot be read, or a value does not fit the type of its column.
    """
    import pandas as pd

    source = Path(csv_path)
    target = source.with_suffix(".parquet") if parquet_path is None else Path(parquet_path)
    if find_spec("pyarrow") is None:
        raise UsageError("Writing Parquet files needs pyarrow: run `pip install 'histocc[parquet]'`")
    names = column_names(source)
    cells: dict[str, list[str]] = {name: [] for name in names}
    for chunk in read_chunks(source, names):
        for name in names:
            cells[name] += chunk[name].tolist()
    columns: dict[str, pd.Series] = {}
    for name, texts in cells.items():
        try:
            if name in (converters or {}):
                columns[name] = pd.Series([converters[name](text) for text in texts])
            else:
                columns[name] = _typed(texts, (dtype_overrides or {}).get(name, str))
        except (ValueError, TypeError) as error:
            raise UsageError(f"{source}, column {name!r}: a value does not fit its type: {error}") from error
    frame = pd.DataFrame(columns)
    write_atomically(target, lambda file: frame.to_parquet(file, index=False))
    return target


def _typed(texts: Sequence[str], dtype: Any) -> pd.Series:
    import pandas as pd

    if dtype in (str, "str", "string", object, "object"):
        return pd.Series(texts, dtype=dtype)
    # By way of numbers, since '5.0' is a whole number that only a float is read from.
    return pd.to_numeric(pd.Series([text.strip() or None for text in texts], dtype=object)).astype(dtype)


def convert_directory_to_parquet(
    csv_dir: str | os.PathLike[str],
    parquet_dir: str | os.PathLike[str] | None = None,
    dtype_overrides: Mapping[str, Any] | None = None,
    converters: Mapping[str, Callable[[str], Any]] | None = None,
    pattern: str = "*.csv",
) -> list[Path]:
    """Write the CSV files of a folder as Parquet files of the same names, in order of name.

    Parameters
    ----------
    csv_dir
        The folder.
    parquet_dir
        Where to write; by default beside the tables. It is made if needed.
    dtype_overrides, converters
        As for `convert_csv_to_parquet`.
    pattern
        Which files to convert.

    Returns
    -------
    list
        The files that were written.

    Raises
    ------
    UsageError
        Names all files that could not be converted, or that there are none.
    """
    folder = Path(csv_dir)
    target = folder if parquet_dir is None else Path(parquet_dir)
    files = sorted(folder.glob(pattern))
    if not files:
        raise UsageError(f"{folder} has no files {pattern!r} to convert")
    target.mkdir(parents=True, exist_ok=True)
    problems = Problems()
    written = [
        problems.run(
            convert_csv_to_parquet, file, target / file.with_suffix(".parquet").name, dtype_overrides, converters
        )
        for file in files
    ]
    problems.raise_if_any()
    return written


def get_hisco_converters() -> dict[str, Callable[[str], Any]]:
    """Converters of tables with HISCO class indices: texts stay as they are."""
    return dict.fromkeys(TEXT_COLUMNS, str)


def get_hisco_dtype_overrides() -> dict[str, str]:
    """Types of tables with HISCO class indices: texts, and whole numbers with gaps (`code1` .. `code5`)."""
    return {**dict.fromkeys(TEXT_COLUMNS, "str"), **dict.fromkeys(CODE_COLUMNS, "Int64")}


def get_occ1950_converters() -> dict[str, Callable[[str], Any]]:
    """Converters of tables with OCC1950 codes: texts and codes stay as they are, with the codes' leading zeros."""
    return dict.fromkeys((*TEXT_COLUMNS, *SYSTEMS["occ1950"]().columns), str)


def get_occ1950_dtype_overrides() -> dict[str, str]:
    """Types of tables with OCC1950 codes: all text, since codes have leading zeros."""
    return dict.fromkeys((*TEXT_COLUMNS, *SYSTEMS["occ1950"]().columns), "str")
