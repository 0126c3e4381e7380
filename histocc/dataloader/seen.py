"""Which descriptions of one data set stand in another one too."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from histocc.dataloader.rows import TextColumn

# Texts that are hashed together.
_CHUNK_ROWS = 2**15


def seen_texts(wanted: TextColumn, among: TextColumn, among_rows: np.ndarray | None = None) -> np.ndarray:
    """Whether each text of `wanted` is also one of `among`, to the letter; bool [len(wanted)].

    Texts are compared by 64-bit hashes: in 100 million of `among` one of 100,000 is wrongly taken for seen with a
    probability of one in a million. A second is enough for about three million short texts, and no memory
    that grows with `among`.

    Parameters
    ----------
    wanted, among
        The texts.
    among_rows
        The rows of `among` that count, [n]; all by default.
    """
    if not len(wanted):
        return np.zeros(0, dtype=bool)
    longest = int(max(np.diff(wanted.offsets).max(initial=0), np.diff(among.offsets).max(initial=0)))
    # A multilinear hash: each place in a text has a random factor of its own.
    factors = np.random.Generator(np.random.PCG64(0)).integers(0, 2**64, size=longest, dtype=np.uint64)
    counts = None
    if among_rows is not None:
        counts = np.zeros(len(among), dtype=bool)
        counts[among_rows] = True
    hashes = np.concatenate([np.empty(0, dtype=np.uint64), *_hashes(wanted, factors)])
    distinct, text_of_row = np.unique(hashes, return_inverse=True)
    found = np.zeros(len(distinct), dtype=bool)
    first = 0
    for chunk in _hashes(among, factors):
        end = first + len(chunk)
        hashes = chunk if counts is None else chunk[counts[first:end]]
        place = np.minimum(np.searchsorted(distinct, hashes), len(distinct) - 1)
        found[place[distinct[place] == hashes]] = True
        first = end
    return found[text_of_row]


def _hashes(texts: TextColumn, factors: np.ndarray) -> Iterator[np.ndarray]:
    """Hashes of all texts in order, chunk by chunk, uint64."""
    for first in range(0, len(texts), _CHUNK_ROWS):
        offsets = texts.offsets[first : first + _CHUNK_ROWS + 1]
        starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
        # One more than the byte, so that a NUL at the end counts; sums wrap around.
        values = texts.data[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)
        values *= factors[np.arange(len(values)) - np.repeat(starts, lengths)]
        sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(values, dtype=np.uint64)])
        yield sums[starts + lengths] - sums[starts]
