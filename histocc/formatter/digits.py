"""Codes of a fixed number of digits, each digit one token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from histocc.formatter.base import BlockFormatter, Tokens, as_list, number_as_text

if TYPE_CHECKING:
    import pandas as pd


class DigitsFormatter(BlockFormatter):
    """Labels of codes with `code_len` digits; a subclass names its system.

    Parameters
    ----------
    max_num_codes
        K, how many codes a row may carry.
    map_char_idx, map_idx_char
        Token index of each digit, and the inverse.
    sep_value
        What stands between the codes of a label; with the empty string a label is one code.

    Attributes
    ----------
    code_len
        S, digits of a code.
    system
        What messages call the system.
    column_stem
        Rows carry their codes in the columns ``<column_stem>_1``, ``<column_stem>_2``, ...
    example
        A code with a leading zero, for messages.
    """

    code_len: ClassVar[int]
    system: ClassVar[str]
    column_stem: ClassVar[str]
    example: ClassVar[str]

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
        """``<column_stem>_1``, ``<column_stem>_2``, ..., one for each code."""
        return tuple(f"{self.column_stem}_{i}" for i in range(1, self.max_num_codes + 1))

    def encode_block(self, code: str) -> np.ndarray:
        """The tokens of one code, int64 [S].

        Raises
        ------
        ValueError
            Unless the code is `code_len` ASCII digits.
        """
        if len(code) != self.code_len or not (code.isascii() and code.isdigit()):
            count = {3: "three", 5: "five"}.get(self.code_len, str(self.code_len))
            raise ValueError(
                f"{code!r} is not an {self.system} code: write {count} digits, with leading zeros ({self.example!r})"
            )
        return np.array([self.map_char_idx[digit] for digit in code], dtype=np.int64)

    def decode_block(self, tokens: Tokens) -> str | None:
        """The code of one block; None if it holds a PAD or another token that is no character."""
        chars = [self.map_idx_char.get(token) for token in as_list(tokens)]
        return None if None in chars else "".join(chars)

    def _codes_of_row(self, row: pd.DataFrame | pd.Series) -> list[str]:
        return self._refuse_row_without_code(super()._codes_of_row(row))

    def _code_from_cell(self, value: Any) -> str:
        return number_as_text(value)
