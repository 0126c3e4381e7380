"""`thresholds.csv` beside a model: above which confidence a code is kept, by method and language.

They are those of the weights that they were found with; a run that has gone on since has others.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from histocc.errors import UsageError
from histocc.files.atomic import write_atomically

COLUMNS = ("method", "language", "threshold", "f1", "rows")
# Where it is missing, as in a file of one's own, they count for any weights.
WEIGHTS_COLUMN = "weights"
ALL_LANGUAGES = "all"
STALE_THRESHOLDS = (
    "{} is not used: its thresholds were found with other weights than these. histocc evaluate writes new ones"
)


class Threshold(NamedTuple):
    """A threshold, F1 in percent that was found with it, and the rows that it was found on."""

    threshold: float
    f1: float
    rows: int


class StoredThresholds(NamedTuple):
    """The thresholds that count, by language, and whether there are others, of other weights."""

    by_language: dict[str, float]
    stale: bool = False


def read_thresholds(path: str | os.PathLike[str], method: str, weights: str) -> StoredThresholds:
    """The threshold of each language for a method and the weights with this mark; none where there is no such file.

    Raises
    ------
    UsageError
        The file is no table of thresholds.
    """
    path = Path(path)
    if not path.exists():
        return StoredThresholds({})
    try:
        rows = [row for row in _rows(path) if row["method"] == method]
        those = [row for row in rows if (row.get(WEIGHTS_COLUMN) or weights) == weights]
        found = {row["language"]: float(row["threshold"]) for row in those}
    except (KeyError, TypeError, ValueError) as error:
        raise _no_table(path, error) from error
    bad = next((name for name, value in found.items() if not 0 <= value <= 1), None)
    if bad is not None:
        raise UsageError(f"{path}: the threshold for {bad!r} is {found[bad]}; it must lie in 0..1")
    return StoredThresholds(found, stale=len(those) < len(rows))


def write_thresholds(path: str | os.PathLike[str], method: str, weights: str, found: Mapping[str, Threshold]) -> None:
    """Write the thresholds of a method for the weights with this mark; those of other methods stay.

    Raises
    ------
    UsageError
        The file that is there is no table of thresholds.
    OSError
        The file cannot be written.
    """
    path = Path(path)
    others: list[list[str]] = []
    if path.exists():
        try:
            others = [
                [*(row[name] for name in COLUMNS), row.get(WEIGHTS_COLUMN) or ""]
                for row in _rows(path)
                if row["method"] != method
            ]
        except KeyError as error:
            raise _no_table(path, error) from error
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, WEIGHTS_COLUMN])
    writer.writerows(others)
    for language, (threshold, f1, rows) in found.items():
        writer.writerow([method, language, repr(float(threshold)), f"{f1:.2f}", rows, weights])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _no_table(path, error) from error


def _no_table(path: Path, error: Exception) -> UsageError:
    columns = ", ".join(COLUMNS)
    return UsageError(f"{path} is no table with the columns {columns} ({error}): correct it, or move it away")
