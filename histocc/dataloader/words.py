"""Words to insert into descriptions, stored as places in a text buffer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from histocc.dataloader.draws import mix
from histocc.dataloader.rows import TextColumn, take_text
from histocc.errors import Problems, UsageError
from histocc.files.tables import columns_fault, read_chunks

if TYPE_CHECKING:
    import pandas as pd

_BLOCK_ROWS = 2**16

# What str.split() splits at; all of it lies below this bound.
_BEYOND_SPACES = 0x3001
_SPACE = np.zeros(_BEYOND_SPACES + 1, dtype=bool)
_SPACE[[i for i in range(_BEYOND_SPACES) if chr(i).isspace()]] = True


def is_space(codepoints: np.ndarray) -> np.ndarray:
    """Where `str.split()` splits, bool, same shape."""
    return _SPACE[np.minimum(codepoints, _BEYOND_SPACES)]


class Words:
    """A pool of words, uniform or weighted.

    Attributes
    ----------
    data
        uint8, a UTF-8 buffer (shared with the column the words come from).
    starts
        First byte of each word.
    byte_lengths
        Bytes of each word.
    cumulative
        float64, cumulated weights up to 1; None where all words weigh the same.
    """

    def __init__(
        self, data: np.ndarray, starts: np.ndarray, byte_lengths: np.ndarray, cumulative: np.ndarray | None = None
    ) -> None:
        self.data = data
        self.starts = starts
        self.byte_lengths = byte_lengths
        self.cumulative = cumulative

    @classmethod
    def from_column(cls, column: TextColumn, rows: np.ndarray | None = None) -> Words:
        """The distinct words (`str.split()`) of a text column, in order of appearance, each with the same weight.

        Parameters
        ----------
        column
            The texts; its buffer is shared, not copied.
        rows
            Row numbers, to take the words of these rows only.
        """
        starts, byte_lengths = _distinct_words(column, rows)
        return cls(column.data, _compact(starts), _compact(byte_lengths))

    @classmethod
    def from_frequencies(cls, table: pd.DataFrame) -> Words:
        """Words weighted by frequency.

        Parameters
        ----------
        table
            Columns `word` and `freq`.

        Raises
        ------
        UsageError
            A column is missing, or the frequencies are not numbers >= 0 with a positive sum.
        """
        import pandas as pd

        problems = Problems()
        fault = columns_fault("The table of word frequencies", list(map(str, table.columns)), ("word", "freq"))
        if fault is not None:
            problems.add(f"{fault} (--fn-word-freq).")
        problems.raise_if_any()
        weights = pd.to_numeric(table["freq"], errors="coerce").to_numpy(dtype=np.float64)
        refused = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
        if len(refused):
            row = (table.index if pd.api.types.is_integer_dtype(table.index) else np.arange(len(table)))[refused[0]] + 2
            problems.add(
                f"The table of word frequencies has {len(refused)} frequencies that are no number >= 0, the first in "
                f"row {row} (the header is row 1): {table['freq'].iloc[refused[0]]!r} (--fn-word-freq)."
            )
        elif not weights.sum() > 0:
            problems.add("The frequencies in the table of words sum to 0: give at least one word a weight.")
        elif not np.isfinite(weights.sum()):
            problems.add(
                f"The frequencies in the table of words are too large to be added up, {weights.max():g} for one: give "
                "smaller ones (--fn-word-freq)."
            )
        problems.raise_if_any()
        text = TextColumn.from_strings(["" if pd.isna(word) else str(word) for word in table["word"]])
        cumulative = np.cumsum(weights)
        return cls(text.data, _compact(text.offsets[:-1]), _compact(np.diff(text.offsets)), cumulative / cumulative[-1])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> str:
        start = int(self.starts[index])
        return self.data[start : start + int(self.byte_lengths[index])].tobytes().decode("utf-8")

    def choose(self, uniform: np.ndarray) -> np.ndarray:
        """Index of a word for each number drawn uniformly from [0, 1)."""
        if self.cumulative is None:
            return (uniform * len(self)).astype(np.int64)
        return np.searchsorted(self.cumulative, uniform, side="right")

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Code points of some words end to end, uint32, and characters of each, int64."""
        return take_text(self.data, self.starts[indices].astype(np.int64), self.byte_lengths[indices].astype(np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes held beside the buffer."""
        weights = 0 if self.cumulative is None else self.cumulative.nbytes
        return self.starts.nbytes + self.byte_lengths.nbytes + weights


def _compact(values: np.ndarray) -> np.ndarray:
    for dtype in (np.uint8, np.uint16, np.uint32):
        if not values.size or values.max() <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.int64)


def _distinct_words(column: TextColumn, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """First byte and number of bytes of the first occurrence of each distinct word, both int64, in order.

    Words are told apart by a 64-bit hash. Among ten million words two would meet with a probability of 3 in a million,
    and all that happens is that one of them is never inserted.
    """
    seen = np.zeros(0, dtype=np.uint64)  # ascending
    starts, lengths = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    total = len(column) if rows is None else len(rows)
    for first in range(0, total, _BLOCK_ROWS):
        last = min(first + _BLOCK_ROWS, total)
        block = np.arange(first, last) if rows is None else rows[first:last]
        where, nbytes, hashes = _hashed_words(column, block)
        hashes, index = np.unique(hashes, return_index=True)
        slot = np.searchsorted(seen, hashes)
        new = np.ones(len(hashes), dtype=bool)
        inside = slot < len(seen)
        new[inside] = seen[slot[inside]] != hashes[inside]
        seen = np.insert(seen, slot[new], hashes[new])
        index = np.sort(index[new])
        starts.append(where[index])
        lengths.append(nbytes[index])
    return np.concatenate(starts), np.concatenate(lengths)


def _hashed_words(column: TextColumn, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All words of some rows: first byte, number of bytes (both int64), hash (uint64)."""
    codepoints, lengths = column.take(rows)
    ends = np.cumsum(lengths)
    in_word = ~is_space(codepoints)
    begins = in_word.copy()
    begins[1:] &= ~in_word[:-1]
    heads = (ends - lengths)[lengths > 0]
    begins[heads] = in_word[heads]  # a word does not go on over the end of a row
    first = np.flatnonzero(begins)
    if not len(first):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)

    size = 1 + (codepoints >= 0x80).astype(np.int64) + (codepoints >= 0x800) + (codepoints >= 0x10000)  # UTF-8
    byte_ends = np.cumsum(size)
    row = np.searchsorted(ends, first, side="right")
    in_buffer = column.offsets[rows]
    row_bytes = column.offsets[rows + 1] - in_buffer
    in_block = np.cumsum(row_bytes) - row_bytes
    starts = (byte_ends - size)[first] + (in_buffer - in_block)[row]

    letters = np.flatnonzero(in_word)
    word_heads = np.flatnonzero(begins[letters])
    place = letters - np.repeat(first, np.diff(np.append(word_heads, len(letters))))
    hashed = mix(codepoints[letters].astype(np.uint64) | (place.astype(np.uint64) << np.uint64(32)))
    return starts, np.add.reduceat(size[letters], word_heads), np.add.reduceat(hashed, word_heads)


def read_word_frequencies(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the columns `word` and `freq` of a CSV or Parquet file as text, also `nan` and `NA`.

    The index says where a row stands: 0 is row 2 of the file, below the header.

    Raises
    ------
    UsageError
        There is no such file, it is no table, or it lacks a column.
    """
    import pandas as pd

    try:
        chunks = list(read_chunks(path, ["word", "freq"], progress=False))
    except UsageError as error:
        raise UsageError(f"{error} (--fn-word-freq)") from None
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(chunk.row_numbers - 2 for chunk in chunks)])
    columns = {name: [text for chunk in chunks for text in chunk[name].tolist()] for name in ("word", "freq")}
    return pd.DataFrame(columns, index=rows, dtype=object)
