"""What a formatter must have to be trained with."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Formatter(Protocol):
    """Translates between codes and tokens; `histocc.formatter.base.BlockFormatter` is the base of ours.

    Attributes
    ----------
    max_num_codes
        K, how many codes a row may carry.
    block_size
        S, tokens per code.
    max_seq_len
        T = K * S + 2, the length of a label with BOS and EOS.
    num_classes
        Size of the vocabulary, once for each of the T positions.
    """

    max_num_codes: int
    block_size: int
    max_seq_len: int
    num_classes: list[int]

    def transform_label(self, raw_input: Any) -> np.ndarray | None:
        """The label's tokens, float64 [T]: BOS, one block for each code, PAD in the unused blocks, EOS."""

    def clean_pred(self, raw_pred: Any) -> str:
        """The codes that tokens [T] spell, joined by the formatter's separator."""
