"""ISCO-68, the International Standard Classification of Occupations of 1968: five digits a code."""

from __future__ import annotations

from histocc.formatter.constants import MAP_IDX_OCC1950, MAP_OCC1950_IDX
from histocc.formatter.digits import DigitsFormatter


class BlockyISCO68Formatter(DigitsFormatter):
    """Labels of ISCO-68 codes such as `'06110&54060'`; rows carry the codes in `isco68_1`, `isco68_2`, ...

    Codes are written without their marks (0-61.10 is `06110`); a group of three digits is filled with zeros.
    """

    code_len = 5
    system = "ISCO-68"
    column_stem = "isco68"
    example = "06110"


def isco68_blocky2() -> BlockyISCO68Formatter:
    """Up to two ISCO-68 codes a row, joined by `&`."""
    return BlockyISCO68Formatter(2, MAP_OCC1950_IDX, MAP_IDX_OCC1950, sep_value="&")
