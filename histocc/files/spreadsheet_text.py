"""Codes in CSV files as spreadsheets leave them alone: ``="06510"``, a formula that is a text."""

from __future__ import annotations

import re

_MARKED = re.compile('="(.*)"', flags=re.DOTALL)


def marked_text(code: str) -> str:
    """A code that a spreadsheet does not take for a number, so that it keeps its leading zeros."""
    return f'="{code}"'


def unmarked_text(cell: str) -> str:
    """The text of a cell, whether `marked_text` was written there or not."""
    found = _MARKED.fullmatch(cell)
    return cell if found is None else found[1]
