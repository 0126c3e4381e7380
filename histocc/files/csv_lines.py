"""Lines of CSV files, as pandas writes them, and rows of any length."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator

# The most that a C long holds on every system; texts are of a few dozen characters, and only a mistake is longer.
_LONGEST_FIELD = 2**31 - 1
_needs_quotes = re.compile('[,"\r\n]')


def csv_field(text: str) -> str:
    """One value as it stands in a CSV file, in quotes where it must be.

    Equal to what pandas and Python's csv write, but for a lone carriage return, which Python before 3.13 leaves bare
    although it would be read back as the end of the row.
    """
    return text if _needs_quotes.search(text) is None else '"' + text.replace('"', '""') + '"'


def csv_line(values: Iterable[str]) -> str:
    """One row as it stands in a CSV file."""
    return ",".join(map(csv_field, values)) + "\n"


def csv_records(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows of a CSV file, as Python's csv reads them, whatever the length of a value."""
    # The limit, 131,072 characters otherwise, belongs to the whole process.
    csv.field_size_limit(_LONGEST_FIELD)
    return csv.reader(lines)
