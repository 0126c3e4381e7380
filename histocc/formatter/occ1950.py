"""OCC1950: three digits a code."""

from __future__ import annotations

from histocc.formatter.constants import MAP_IDX_OCC1950, MAP_OCC1950_IDX
from histocc.formatter.digits import DigitsFormatter

CODE_LEN = 3


class BlockyOCC1950Formatter(DigitsFormatter):
    """Labels of OCC1950 codes such as `'043&720'`; rows carry the codes in `OCC1950_1`, `OCC1950_2`, ..."""

    code_len = CODE_LEN
    system = "OCC1950"
    column_stem = "OCC1950"
    example = "043"


def occ1950_codes() -> list[str]:
    """All thousand numbers of three digits: every one is a class of its own, whether or not it stands for a code."""
    return [f"{number:03d}" for number in range(1000)]


def occ1950_blocky1() -> BlockyOCC1950Formatter:
    """One OCC1950 code a row."""
    return BlockyOCC1950Formatter(1, MAP_OCC1950_IDX, MAP_IDX_OCC1950, sep_value="&")


def occ1950_blocky2() -> BlockyOCC1950Formatter:
    """Up to two OCC1950 codes a row, joined by `&`."""
    return BlockyOCC1950Formatter(2, MAP_OCC1950_IDX, MAP_IDX_OCC1950, sep_value="&")
