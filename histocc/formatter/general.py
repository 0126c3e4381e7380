"""Any coding system: codes of up to `block_size` tokens over an alphabet of one's own."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from histocc.formatter.base import BlockFormatter, Tokens, as_list, number_as_text
from histocc.formatter.constants import EOS_IDX, PAD_IDX, SEP_IDX

if TYPE_CHECKING:
    import pandas as pd

SEP_VALUE = "&"
WITHIN_BLOCK_SEP = ","

# The order is part of trained models: the position of a character is its token.
GENERAL_PURPOSE_CHARS: tuple[str, ...] = (
    *(str(number) for number in range(-999, 1000)),
    *string.ascii_letters,
    *(char for char in string.punctuation if char not in (SEP_VALUE, WITHIN_BLOCK_SEP)),
)
FINETUNE_CHARS: tuple[str, ...] = (*string.digits, "-")


class BlockyFormatter(BlockFormatter):
    """Labels of codes in any system, such as `'510X&b3Z'`; a code shorter than the block is filled with EOS.

    Parameters
    ----------
    target_cols
        The columns in which a row carries its codes; their number is K.
    block_size
        S, tokens per code.
    map_char_idx
        Token index of each character.
    map_idx_char
        The inverse of `map_char_idx`.
    sep_value
        What stands between the codes of a label; with the empty string a label is one code.
    within_block_sep
        If given, codes are split there and each piece is one token (`'1,13,0,0'`);
        otherwise each character is one.

    Raises
    ------
    ValueError
        If there is no target column, or if the two separators are equal.
    """

    def __init__(
        self,
        target_cols: Sequence[str],
        block_size: int,
        map_char_idx: Mapping[str, int],
        map_idx_char: Mapping[int, str],
        sep_value: str = "",
        within_block_sep: str | None = None,
    ) -> None:
        if isinstance(target_cols, str) or not target_cols:
            raise ValueError(f"target_cols is a list with at least one column name, not {target_cols!r}")
        if within_block_sep == sep_value:
            raise ValueError(
                f"{sep_value!r} cannot separate both the codes and the pieces of a code: "
                f"choose another sep_value or within_block_sep"
            )
        super().__init__(len(target_cols), block_size, map_char_idx, map_idx_char, sep_value)
        self.target_cols = list(target_cols)
        self.within_block_sep = within_block_sep

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The target columns."""
        return tuple(self.target_cols)

    def encode_block(self, code: str) -> np.ndarray:
        """The tokens of one code, filled up with EOS, int64 [S]; the empty code is all EOS.

        Raises
        ------
        ValueError
            If the code is longer than the block or holds a character outside the alphabet.
        """
        pieces = code.split(self.within_block_sep) if code and self.within_block_sep else list(code)
        what = "piece" if self.within_block_sep else "character"
        if len(pieces) > self.block_size:
            raise ValueError(
                f"Code {code!r} has {len(pieces)} {what}s, but a block holds {self.block_size}: "
                f"raise the block size (--block-size {len(pieces)}) or correct the code"
            )
        for piece in pieces:
            if piece not in self.map_char_idx:
                hint = (
                    ", or split codes at commas (--use-within-block-sep)"
                    if piece == WITHIN_BLOCK_SEP and not self.within_block_sep
                    else ""
                )
                raise ValueError(
                    f"Code {code!r} has the {what} {piece!r}, which this formatter does not know: "
                    f"correct the code{hint}, or give the formatter all characters of your codes (chars)"
                )
        tokens = np.full(self.block_size, EOS_IDX, dtype=np.int64)
        tokens[: len(pieces)] = [self.map_char_idx[piece] for piece in pieces]
        return tokens

    def decode_block(self, tokens: Tokens) -> str | None:
        """The code of one block, None if all of it is PAD; tokens that are no characters are left out."""
        block = as_list(tokens)
        if all(token == PAD_IDX for token in block):
            return None
        chars = (self.map_idx_char.get(token) for token in block)
        return (self.within_block_sep or "").join(char for char in chars if char is not None)

    def _codes_of_row(self, row: pd.DataFrame | pd.Series) -> list[str]:
        return super()._codes_of_row(row) or [""]

    def _code_from_cell(self, value: Any) -> str:
        return number_as_text(value)


def construct_general_purpose_formatter(
    block_size: int,
    target_cols: Sequence[str],
    chars: Sequence[str] | None = None,
    use_within_block_sep: bool = False,
) -> BlockyFormatter:
    """A formatter for codes of integers -999..999 (as pieces), ASCII letters and punctuation.

    Parameters
    ----------
    block_size
        Tokens per code.
    target_cols
        The code columns, in order.
    chars
        The alphabet in place of the default one; its order decides the tokens.
    use_within_block_sep
        Split codes at `,` and make each piece one token (PST codes, `'1,13,0,0'`).

    Raises
    ------
    ValueError
        If a character occurs twice in `chars`.
    """
    return _construct(
        block_size,
        target_cols,
        GENERAL_PURPOSE_CHARS if chars is None else chars,
        within_block_sep=WITHIN_BLOCK_SEP if use_within_block_sep else None,
    )


def construct_finetune_formatter(
    block_size: int, target_cols: Sequence[str], chars: Sequence[str] | None = None
) -> BlockyFormatter:
    """A formatter for codes of digits and `-`, each one token.

    Parameters
    ----------
    block_size
        Tokens per code.
    target_cols
        The code columns, in order.
    chars
        The alphabet in place of the default one; its order decides the tokens.

    Raises
    ------
    ValueError
        If an entry of `chars` occurs twice or is not a single character.
    """
    chars = FINETUNE_CHARS if chars is None else chars
    not_single = [char for char in chars if len(char) != 1]
    if not_single:
        raise ValueError(f"chars holds entries that are not one character: {not_single}; split or remove them")
    return _construct(block_size, target_cols, chars)


def _construct(
    block_size: int, target_cols: Sequence[str], chars: Sequence[str], within_block_sep: str | None = None
) -> BlockyFormatter:
    duplicates = [char for char, count in Counter(chars).items() if count > 1]
    if duplicates:
        raise ValueError(f"chars holds duplicate characters: {duplicates}; each can stand for one token only")
    map_char_idx = {char: index for index, char in enumerate(chars, start=SEP_IDX + 1)}
    map_idx_char = {index: char for char, index in map_char_idx.items()}
    return BlockyFormatter(target_cols, block_size, map_char_idx, map_idx_char, SEP_VALUE, within_block_sep)
