"""Columns by which a table of rows to check by hand is known, wherever it is read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

# Whoever has corrected the codes of a row ticks it, with anything in this column.
CHECKED: Final = "checked"
# How a row came into the table.
SAMPLE: Final = "sample"


def is_review(columns: Collection[str]) -> bool:
    """Whether a table with these columns is one of rows to check by hand, of which only those ticked count."""
    return {CHECKED, SAMPLE} <= set(columns)
