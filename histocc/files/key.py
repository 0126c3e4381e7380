"""`key.csv`: the class index of every code."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from histocc.errors import UsageError
from histocc.files.atomic import write_atomically
from histocc.files.csv_lines import csv_records, csv_text
from histocc.files.entries import shown
from histocc.files.ordinary import IS_MISSING, fault_of_file

KEY_COLUMNS = ("system_code", "code")
# Of a class index; there are never so many codes.
_MOST_DIGITS = 12


def read_key(path: str | Path) -> dict[str, int]:
    """Read a `key.csv`: the class index of each code, in the order of the file.

    Codes are text and stay as they are written: `NA`, `nan` and leading zeros are kept, and the empty code that keys of
    older runs may hold is a code like any other. The column `system_code` may be missing from hand-made files as long
    as `code` holds the class indices and one other column the codes.

    Raises
    ------
    UsageError
        If there is no such file, a column is missing, a code occurs twice, or the class indices are not
        0, 1, ..., n - 1, each once.
    """
    path = Path(path)
    fault = fault_of_file(path)
    if fault not in (None, IS_MISSING):
        raise UsageError(f"The key {path} {fault}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_records(file)
            header = next(reader, [])
            # A blank line is no row; the row number of each entry is the one a spreadsheet shows.
            rows = [(number, row) for number, row in enumerate(reader, start=2) if row]
    except FileNotFoundError:
        raise UsageError(f"There is no key file {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"Cannot read the key {path}: {error}") from None

    if "code" not in header or len(set(header)) < 2:
        raise UsageError(
            f"The key {path} needs the columns {', '.join(KEY_COLUMNS)}, but its first row is {shown(','.join(header))}"
        )
    index_at = header.index("code")
    code_at = header.index("system_code") if "system_code" in header else next(i for i in (0, 1) if i != index_at)

    key: dict[str, int] = {}
    taken: dict[int, str] = {}
    for number, row in rows:
        if len(row) != len(header):
            raise UsageError(f"Row {number} of the key {path} has {len(row)} values, its header {len(header)}")
        code, index = row[code_at], row[index_at]
        if not index.isascii() or not index.isdigit() or len(index) > _MOST_DIGITS:
            raise UsageError(f"Row {number} of the key {path}: the class index {shown(index)} is not a whole number")
        if code in key:
            raise UsageError(f"Row {number} of the key {path}: the code {shown(code)} occurs twice; remove one")
        if int(index) in taken:
            raise UsageError(
                f"Row {number} of the key {path}: the class {index} belongs to both {shown(taken[int(index)])} and "
                f"{shown(code)}"
            )
        key[code] = int(index)
        taken[int(index)] = code
    if not key:
        raise UsageError(f"The key {path} holds no codes")
    absent = next((i for i in range(len(key)) if i not in taken), None)
    if absent is not None:
        highest = max(taken)
        raise UsageError(
            f"The key {path} has {len(key)} codes, so their classes must be 0 to {len(key) - 1}, but the class "
            f"{absent} is missing, and {shown(taken[highest])} has the class {highest}: number them without gaps"
        )
    return key


def write_key(key: Mapping[str, int], path: str | Path) -> None:
    """Write a `key.csv` (`system_code,code`), in the order of `key`; the file is replaced as a whole.

    Raises OSError if it cannot be written; what was there before stays.
    """
    text = csv_text([KEY_COLUMNS, *((code, str(index)) for code, index in key.items())])
    write_atomically(Path(path), lambda file: file.write(text.encode()))
