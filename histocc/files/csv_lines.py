"""Rows of CSV files: written so that they are read back as they were, and read whatever the length of a value."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

# The most that a C long holds on every system; texts are of a few dozen characters, and only a mistake is longer.
_LONGEST_FIELD = 2**31 - 1


class _Lines(list):
    write = list.append


def csv_text(rows: Iterable[Iterable[str]]) -> str:
    r"""Rows as they stand in a CSV file, each with a ``\n`` at its end.

    Equal to what pandas and Python's csv write, but for a lone carriage return, which Python before 3.13 leaves bare
    although it would be read back as the end of the row.
    """
    lines = _Lines()
    # With this end of a line, values with either of its characters stand in quotes.
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return "".join([line[:-2] + "\n" for line in lines])


def csv_records(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows of a CSV file, as Python's csv reads them, whatever the length of a value."""
    # The limit, 131,072 characters otherwise, belongs to the whole process.
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.reader(lines)
