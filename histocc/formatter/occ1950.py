"""OCC1950: three digits a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .base import Formatter, Tokens, as_list, number_as_text
from .constants import MAP_IDX_OCC1950, MAP_OCC1950_IDX

if TYPE_CHECKING:
    import pandas as pd


class BlockyOCC1950Formatter(Formatter):
    """Labels of OCC1950 codes such as `'043&720'`; rows carry the codes in `OCC1950_1`, `OCC1950_2`, ..."""

    code_len = 3

    def __init__(
        self,
        max_num_codes: int,
        map_char_idx: Mapping[str, int],
        map_idx_char: Mapping[int, str],
        sep_value: str = "",
    ) -> None:
        super().__init__(max_num_codes, self.code_len, map_char_idx, map_idx_char, sep_value)

    @property
    def row_columns(self) -> tuple[str, ...]:
        """`OCC1950_1`, `OCC1950_2`, ..., one for each code."""
        return tuple(f"OCC1950_{i}" for i in range(1, self.max_num_codes + 1))

    def encode_block(self, code: str) -> np.ndarray:
        """The three tokens of one code, int64 [3].

        Raises:
            ValueError: unless the code is three digits.
        """
        if len(code) != self.code_len or not (code.isascii() and code.isdigit()):
            raise ValueError(f"{code!r} is not an OCC1950 code: write three digits, with leading zeros ('043')")
        return np.array([self.map_char_idx[digit] for digit in code], dtype=np.int64)

    def decode_block(self, tokens: Tokens) -> str | None:
        """The code of one block; None if it holds a PAD or another token that is no character."""
        chars = [self.map_idx_char.get(token) for token in as_list(tokens)]
        return None if None in chars else "".join(chars)

    def _codes_of_row(self, row: pd.DataFrame | pd.Series) -> list[str]:
        return self._refuse_row_without_code(super()._codes_of_row(row))

    def _code_from_cell(self, value: Any) -> str:
        return number_as_text(value)


def occ1950_blocky1() -> BlockyOCC1950Formatter:
    """One OCC1950 code a row."""
    return BlockyOCC1950Formatter(1, MAP_OCC1950_IDX, MAP_IDX_OCC1950, sep_value="&")


def occ1950_blocky2() -> BlockyOCC1950Formatter:
    """Up to two OCC1950 codes a row, joined by `&`."""
    return BlockyOCC1950Formatter(2, MAP_OCC1950_IDX, MAP_IDX_OCC1950, sep_value="&")
