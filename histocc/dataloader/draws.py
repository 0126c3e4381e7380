"""Random numbers that depend on seed, epoch, row and purpose alone, not on the order in which they are asked for.

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), used as a
hash of a counter. Every row of every epoch has a stream of its own, so a row's augmentation is the same in any batch
and any worker process.
"""

from __future__ import annotations

import numpy as np

_GAMMA = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, a bijection on uint64 that scatters its input; same shape."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Draws:
    """Streams of random numbers, one for each row; number c of a row's stream is always the same.

    Parameters
    ----------
    seed
        Of the run.
    epoch
        Pass over the data.
    rows
        Row numbers, [n].
    """

    def __init__(self, seed: int, epoch: int, rows: np.ndarray) -> None:
        run = mix(np.array([seed * _GAMMA & _MASK], dtype=np.uint64))
        run = mix(run + np.array([(epoch + 1) * _GAMMA & _MASK], dtype=np.uint64))
        self._streams = mix(np.asarray(rows).astype(np.uint64) + run)

    def at(self, index: np.ndarray) -> Draws:
        """The streams of some of the rows."""
        part = object.__new__(Draws)
        part._streams = self._streams[index]
        return part

    def again(self, use: int) -> Draws:
        """Streams for another use of the same rows, `use` 0 being these ones."""
        part = object.__new__(Draws)
        part._streams = mix(self._streams + np.uint64(use * _GAMMA & _MASK)) if use else self._streams
        return part

    def seed(self, counter: int) -> int:
        """A seed from the stream of the first row."""
        return int(self.at(np.zeros(1, dtype=np.int64)).bits(counter)[0])

    def bits(self, counter: int) -> np.ndarray:
        """64 random bits for each row, uint64 [n]."""
        return mix(self._streams + np.uint64((counter + 1) * _GAMMA & _MASK))

    def block(self, counter: int, width: int) -> np.ndarray:
        """Numbers `counter` to `counter + width - 1` of each stream, uint64 [n, width]."""
        steps = np.arange(counter + 1, counter + 1 + width, dtype=np.uint64) * np.uint64(_GAMMA)
        return mix(self._streams[:, None] + steps)

    def uniform(self, counter: int) -> np.ndarray:
        """Uniform in [0, 1), float64 [n]."""
        return (self.bits(counter) >> np.uint64(11)) * 2.0**-53

    def below(self, counter: int, bound: int | np.ndarray) -> np.ndarray:
        """Uniform in 0 .. bound - 1 for bounds under 2**31, int64 [n]; 0 where the bound is 0."""
        return scale(self.bits(counter), bound)


def scale(bits: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Random bits to whole numbers in 0 .. bound - 1, int64 of the same shape."""
    return ((bits >> np.uint64(33)).astype(np.int64) * bound) >> 31
