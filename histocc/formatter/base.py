"""What all blocky formatters do alike: `[BOS] + K blocks of S tokens + [EOS]`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from histocc.formatter.constants import BOS_IDX, EOS_IDX, PAD_IDX

if TYPE_CHECKING:
    import pandas as pd
    import torch

Label: TypeAlias = "str | pd.DataFrame | pd.Series | None"
Tokens: TypeAlias = "Sequence[float] | np.ndarray | torch.Tensor"


# Python would also read `1_0`, `１２` and `1e1`, which are typing errors in a table.
_WHOLE_NUMBER = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")


class BlockFormatter(ABC):
    """Translates between codes and tokens; one block of `block_size` tokens for each of up to `max_num_codes` codes.

    Parameters
    ----------
    max_num_codes
        K, how many codes a row may carry.
    block_size
        S, tokens per code.
    map_char_idx
        Token index of each character (a "character" may be several letters long).
    map_idx_char
        The inverse of `map_char_idx`.
    sep_value
        What stands between the codes of a label; with the empty string a label is one code.

    Attributes
    ----------
    max_seq_len
        T = K * S + 2, the length of a label with BOS and EOS.
    num_classes
        The size of the vocabulary, once for each of the T positions.

    Raises
    ------
    ValueError
        If `max_num_codes` or `block_size` is below 1.
    """

    def __init__(
        self,
        max_num_codes: int,
        block_size: int,
        map_char_idx: Mapping[str, int],
        map_idx_char: Mapping[int, str],
        sep_value: str,
    ) -> None:
        if max_num_codes < 1 or block_size < 1:
            raise ValueError(
                f"A formatter needs at least one code per row and one token per code, "
                f"got {max_num_codes} codes and a block size of {block_size}"
            )
        self.max_num_codes = max_num_codes
        self.block_size = block_size
        self.map_char_idx = dict(map_char_idx)
        self.map_idx_char = dict(map_idx_char)
        self.sep_value = sep_value
        self.max_seq_len = max_num_codes * block_size + 2
        self.num_classes: list[int] = [max(self.map_idx_char) + 1] * self.max_seq_len

    @property
    @abstractmethod
    def row_columns(self) -> tuple[str, ...]:
        """Names of the K columns in which a table row carries its codes."""

    @abstractmethod
    def encode_block(self, code: str) -> np.ndarray:
        """The tokens of one code, int64 [S].

        Raises
        ------
        ValueError
            If the code does not fit; the message names it.
        """

    @abstractmethod
    def decode_block(self, tokens: Tokens) -> str | None:
        """The code that S tokens spell; None if the block counts as empty. Never raises on any token."""

    @abstractmethod
    def _code_from_cell(self, value: Any) -> str:
        """The code that a non-missing cell of a table row stands for."""

    def sanitize(self, raw_input: Label) -> str | None:
        """The codes of a label or a row as one string, joined by `sep_value`.

        Parameters
        ----------
        raw_input
            A string, which is returned as it is; a one-row DataFrame or a Series with the columns
            `row_columns`, whose codes end at the first missing one (None, NaN or a blank); or None.

        Raises
        ------
        ValueError
            If a DataFrame has not exactly one row, a column is absent, or a cell holds no code.
        TypeError
            For anything else.
        """
        if raw_input is None or isinstance(raw_input, str):
            return raw_input
        return self.sep_value.join(self._codes_of_row(raw_input))

    def transform_label(self, raw_input: Label) -> np.ndarray | None:
        """The label's tokens, float64 [T]: BOS, one block for each code, PAD in the unused blocks, EOS.

        Parameters
        ----------
        raw_input
            As in `sanitize`; None gives None.

        Raises
        ------
        ValueError
            If there are more than K codes, or one that does not fit; the message names the code.
        """
        if getattr(self.sanitize, "__func__", None) is not BlockFormatter.sanitize:
            raw_input = self.sanitize(raw_input)
        if raw_input is None:
            return None
        if not isinstance(raw_input, str):
            codes = self._codes_of_row(raw_input)
        elif self.sep_value:
            codes = raw_input.split(self.sep_value)
        else:
            codes = [raw_input]

        if len(codes) > self.max_num_codes:
            raise ValueError(
                f"{raw_input!r} holds {len(codes)} codes, but a label has room for {self.max_num_codes}: "
                f"drop {self.sep_value.join(codes[self.max_num_codes :])!r}, or use a formatter for more codes"
            )

        label = np.full(self.max_seq_len, PAD_IDX, dtype=np.float64)
        label[0], label[-1] = BOS_IDX, EOS_IDX
        for i, code in enumerate(codes):
            start = 1 + i * self.block_size
            label[start : start + self.block_size] = self.encode_block(code)
        return label

    def clean_pred(self, raw_pred: Tokens) -> str:
        """The codes that a token sequence spells, joined by `sep_value`; the inverse of `transform_label`.

        Parameters
        ----------
        raw_pred
            Tokens [T] with BOS and EOS in place, from a list, an array or a tensor on any device.
            Any token is accepted; a last block that is not complete is ignored.
        """
        tokens = as_list(raw_pred)[1:-1]
        nb_blocks = min(len(tokens) // self.block_size, self.max_num_codes)
        blocks = (tokens[i * self.block_size : (i + 1) * self.block_size] for i in range(nb_blocks))
        codes = (self.decode_block(block) for block in blocks)
        return self.sep_value.join(code for code in codes if code is not None)

    def _codes_of_row(self, row: pd.DataFrame | pd.Series) -> list[str]:
        """The codes of a table row up to the first missing one."""
        import pandas as pd

        if isinstance(row, pd.DataFrame):
            if len(row) != 1:
                raise ValueError(f"A label is made from one row, but the DataFrame has {len(row)}: pass one at a time")
        elif not isinstance(row, pd.Series):
            raise TypeError(f"A label is a string, a one-row DataFrame, a Series or None, not {type(row).__name__}")

        absent = [column for column in self.row_columns if column not in row]
        if absent:
            raise ValueError(f"The row lacks the code columns {absent}: add them (empty where a row has fewer codes)")

        codes = []
        for column in self.row_columns:
            # Cell by cell: taking the row as a whole would make floats of its integers.
            value = row[column].iloc[0] if isinstance(row, pd.DataFrame) else row[column]
            if pd.isna(value) or (isinstance(value, str) and not value.strip()):
                break
            codes.append(self._code_from_cell(value))
        return codes

    def _refuse_row_without_code(self, codes: list[str]) -> list[str]:
        """For the systems in which a row has at least one code."""
        if not codes:
            raise ValueError(f"The row has no code in {self.row_columns[0]!r}: give it one, or leave the row out")
        return codes


def whole_number(text: str) -> int | None:
    """The whole number that a text stands for (`'5'`, `'5.0'`), None if it is none; only ASCII digits are digits."""
    found = _WHOLE_NUMBER.fullmatch(text)
    return None if found is None else int(found[1])


def number_as_text(value: Any) -> str:
    """A cell's text; whole floats lose their decimals (61110.0 is the code 61110 in a column with empty cells)."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def as_list(tokens: Tokens) -> list[float]:
    """Tokens as plain numbers, from a list, an array or a tensor."""
    return tokens.tolist() if hasattr(tokens, "tolist") else np.asarray(tokens).tolist()
