"""Token indices that all coding systems share, and the alphabets of the fixed ones."""

from __future__ import annotations

UNK_IDX, PAD_IDX, BOS_IDX, EOS_IDX, SEP_IDX = 0, 1, 2, 3, 4

# HISCO: the special codes -3, -2, -1, then the digits, each one token.
MAP_HISCO_IDX: dict[str, int] = {str(value): value + 8 for value in range(-3, 10)}
MAP_IDX_HISCO: dict[int, str] = {index: char for char, index in MAP_HISCO_IDX.items()}

MAP_OCC1950_IDX: dict[str, int] = {str(digit): digit + 5 for digit in range(10)}
MAP_IDX_OCC1950: dict[int, str] = {index: char for char, index in MAP_OCC1950_IDX.items()}
