"""HISCO: five digits a code, or one of the special codes -1, -2, -3."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.formatter.base import BlockFormatter, Tokens, as_list, whole_number
from histocc.formatter.constants import MAP_HISCO_IDX, MAP_IDX_HISCO, PAD_IDX

if TYPE_CHECKING:
    import pandas as pd

SPECIAL_CODES = ("-1", "-2", "-3")


class BlockyHISCOFormatter(BlockFormatter):
    """Labels of HISCO codes such as `'61110&-1'`; a special code is its token repeated over the block.

    Table rows carry class indices (ints, floats or numeric strings) in the columns `code1`, `code2`, ...
    The class index of a code is its rank in the ascending list of all 1,919 codes: 0 is `-3`, 3 is `01110`.
    """

    code_len = 5

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
        """`code1`, `code2`, ..., one for each code."""
        return tuple(f"code{i}" for i in range(1, self.max_num_codes + 1))

    @cached_property
    def lookup_hisco(self) -> dict[int, int]:
        """The code of each class index, as an integer (1110 for `01110`); may be replaced by another key."""
        from histocc.datasets import hisco_codes

        return {index: int(code) for index, code in enumerate(hisco_codes())}

    def code_from_class(self, index: int) -> str:
        """The code of a class index, with its leading zero.

        Raises
        ------
        ValueError
            If there is no such class.
        """
        if index not in self.lookup_hisco:
            raise ValueError(
                f"{index} is not a HISCO class index, which runs from {min(self.lookup_hisco)} to "
                f"{max(self.lookup_hisco)}: if it is a HISCO code, replace it by its class index in the key"
            )
        code = self.lookup_hisco[index]
        return str(code) if code < 0 else str(code).zfill(self.code_len)

    def encode_block(self, code: str) -> np.ndarray:
        """The five tokens of one code, int64 [5].

        Raises
        ------
        ValueError
            Unless the code is five digits or one of -1, -2, -3.
        """
        if code in SPECIAL_CODES:
            return np.full(self.block_size, self.map_char_idx[code], dtype=np.int64)
        if len(code) != self.code_len or not (code.isascii() and code.isdigit()):
            raise ValueError(
                f"{code!r} is not a HISCO code: write five digits, with the leading zero ('01110'), "
                f"or one of {', '.join(SPECIAL_CODES)}"
            )
        return np.array([self.map_char_idx[digit] for digit in code], dtype=np.int64)

    def decode_block(self, tokens: Tokens) -> str | None:
        """The code of one block.

        None if the block holds a PAD or a token that is no character. A block that starts with a special token is
        that special code, whatever follows.
        """
        block = as_list(tokens)
        if PAD_IDX in block:
            return None
        chars = [self.map_idx_char.get(token) for token in block]
        if chars[0] in SPECIAL_CODES:
            return chars[0]
        return None if None in chars else "".join(chars)

    def _codes_of_row(self, row: pd.DataFrame | pd.Series) -> list[str]:
        return self._refuse_row_without_code(super()._codes_of_row(row))

    def _code_from_cell(self, value: Any) -> str:
        try:
            index = float(value) if not isinstance(value, str) else float(whole_number(value.strip()))
        except (TypeError, ValueError):
            index = float("nan")
        if not index.is_integer():
            raise ValueError(f"{value!r} is not a HISCO class index: code columns hold whole numbers")
        return self.code_from_class(int(index))


def hisco_blocky5() -> BlockyHISCOFormatter:
    """The formatter of the published HISCO models: up to five codes, joined by `&`."""
    return BlockyHISCOFormatter(5, MAP_HISCO_IDX, MAP_IDX_HISCO, sep_value="&")


def blocky5() -> BlockyHISCOFormatter:
    """Deprecated name of `hisco_blocky5`."""
    warnings.warn("blocky5 is deprecated, use hisco_blocky5", DeprecationWarning, stacklevel=2)
    return hisco_blocky5()


def format_hisco(raw_hisco: str, mapping: Mapping[str, int], broadcast: bool = False) -> list[int]:
    """The tokens of one code; a special code is one token, or five of it with `broadcast`."""
    if raw_hisco in SPECIAL_CODES:
        return [mapping[raw_hisco]] * (BlockyHISCOFormatter.code_len if broadcast else 1)
    return [mapping[digit] for digit in raw_hisco]


def clean_hisco(formatted_hisco: Tokens, rev_mapping: Mapping[int, str]) -> str:
    """The code that tokens spell, special codes included."""
    chars = [rev_mapping[token] for token in as_list(formatted_hisco)]
    return chars[0] if chars[0] in SPECIAL_CODES else "".join(chars)


def format_hisco_seq_blocky(
    raw_seq: str, max_num_codes: int, mapping: Mapping[str, int], sep_value: str = ""
) -> np.ndarray:
    """What a `BlockyHISCOFormatter` makes of a label."""
    return BlockyHISCOFormatter(max_num_codes, mapping, _inverse(mapping), sep_value).transform_label(raw_seq)


def clean_hisco_seq_blocky(
    raw_pred: Tokens, num_blocks: int, rev_mapping: Mapping[int, str], sep_value: str = ""
) -> str:
    """The codes that a `BlockyHISCOFormatter` reads from tokens."""
    return BlockyHISCOFormatter(num_blocks, _inverse(rev_mapping), rev_mapping, sep_value).clean_pred(raw_pred)


def _inverse(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return {value: key for key, value in mapping.items()}
