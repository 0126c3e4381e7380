"""Lines of CSV files, as pandas writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
