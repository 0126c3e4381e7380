"""Columns by which a table of rows to check by hand is known, wherever it is read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

# Whoever has corrected the codes of a row ticks it, with anything in this column.
CHECKED: Final = "checked"
# How a row came into the table.
SAMPLE: Final = "sample"
# What R, Stata and pandas write into the rows of this column that nobody has touched.
_NO_TICKS: Final = frozenset({"", "na", "nan", "<na>", "n/a", "none", "null", ".", "false", "no", "0", "0.0"})


def is_review(columns: Collection[str]) -> bool:
    """Whether a table with these columns is one of rows to check by hand, of which only those ticked count."""
    return {CHECKED, SAMPLE} <= set(columns)


def is_ticked(mark: str) -> bool:
    """Whether the text in the column `CHECKED` ticks its row; what programs write for nothing or for no does not."""
    return mark.strip().lower() not in _NO_TICKS
