"""`thresholds.csv` beside a model: above which confidence a code is kept, by method and language."""

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
ALL_LANGUAGES = "all"


class Threshold(NamedTuple):
    """A threshold, F1 in percent that was found with it, and the rows that it was found on."""

    threshold: float
    f1: float
    rows: int


def read_thresholds(path: str | os.PathLike[str], method: str) -> dict[str, float]:
    """The threshold of each language for a method; empty where there is no such file.

    Raises
    ------
    UsageError
        The file is no table of thresholds.
    """
    path = Path(path)
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        found = {row["language"]: float(row["threshold"]) for row in rows if row["method"] == method}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is no table with the columns {', '.join(COLUMNS)} ({error}): correct it, or move it away"
        ) from error
    bad = next((name for name, value in found.items() if not 0 <= value <= 1), None)
    if bad is not None:
        raise UsageError(f"{path}: the threshold for {bad!r} is {found[bad]}; it must lie in 0..1")
    return found


def write_thresholds(path: str | os.PathLike[str], method: str, found: Mapping[str, Threshold]) -> None:
    """Write the thresholds of a method; those of other methods stay. Raises OSError where that cannot be done."""
    path = Path(path)
    others: list[list[str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8-sig") as file:
            others = [[row[name] for name in COLUMNS] for row in csv.DictReader(file) if row["method"] != method]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(others)
    for language, (threshold, f1, rows) in found.items():
        writer.writerow([method, language, f"{threshold:.4f}", f"{f1:.2f}", rows])
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))
