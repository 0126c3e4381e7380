"""The order of the rows: a function of (seed, epoch), dealt out over processes, resumable at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

# Batches that are sorted by length together; what lies further apart stays shuffled.
_WINDOW_BATCHES = 64


class BatchIndex(NamedTuple):
    """Which rows make a batch.

    Attributes
    ----------
    epoch
        Pass over the data, decides the augmentation.
    rows
        Row numbers, int64 [B].
    filler
        The rows belong to another process and only keep this one in step; their loss counts 0.
    trim_padding
        The rows are to be padded no further than the longest of them needs.
    """

    epoch: int
    rows: np.ndarray
    filler: bool = False
    trim_padding: bool = False


class TrainBatchSampler(Sampler[BatchIndex]):
    """Batches of one process, each row of an epoch in exactly one batch of one process.

    One permutation of the rows per epoch. Step s of W processes takes its positions `s*B*W .. (s+1)*B*W - 1`, and of
    these process r the r-th B. What is left in the end makes one more step, dealt evenly, so that all processes have
    equally many batches. If less than one row per process is left, these rows join the last whole step; if there is
    none, the processes that get no row are given a filler.

    Parameters
    ----------
    n_rows
        Rows of the data set.
    batch_size
        B, rows per process and step.
    seed
        Of the order.
    rank
        r, this process.
    world_size
        W, number of processes.
    shuffle
        False keeps the rows in their own order.
    lengths
        `lengths(rows, epoch)` gives each row's length, [n]. With it the rows of a batch are about equally long: of
        every 64 batches in the epoch's order the rows are sorted by length, and the batches shuffled; and batches are
        padded no further than they need.

    Raises
    ------
    ValueError
        A number makes no sense.
    """

    def __init__(
        self,
        n_rows: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        lengths: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> None:
        _check(batch_size, rank, world_size)
        if n_rows < 1:
            raise ValueError(f"n_rows is {n_rows}, but there must be at least one row to train on")
        self.n_rows = n_rows
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle
        self.lengths = lengths
        self.epoch = 0
        self._position = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def set_position(self, rows_done: int) -> None:
        """Let the next iteration, and only that, begin behind the first `rows_done` rows of the epoch.

        Parameters
        ----------
        rows_done
            Rows that all processes together have seen, as `rows_done` gives them.

        Raises
        ------
        ValueError
            It is no number of rows in the data set.
        """
        if not 0 <= rows_done <= self.n_rows:
            raise ValueError(f"Position {rows_done} does not lie in an epoch of {self.n_rows} rows")
        self._position = rows_done

    def rows_done(self, batches: int, start: int = 0) -> int:
        """Rows of the epoch that all processes have seen after some batches of an iteration that began at `start`."""
        if batches >= self.batches_from(start):
            return self.n_rows
        return start + batches * self.batch_size * self.world_size

    def batches_from(self, start: int) -> int:
        """Batches of each process in an iteration that begins at position `start`."""
        steps, left = divmod(self.n_rows - start, self.batch_size * self.world_size)
        return steps + (left >= self.world_size or (left > 0 and steps == 0))

    def __len__(self) -> int:
        """Batches of each process in a full epoch."""
        return self.batches_from(0)

    def __iter__(self) -> Iterator[BatchIndex]:
        # Read only once the first batch is asked for: DataLoader makes iterators that it throws away.
        epoch, start, self._position = self.epoch, self._position, 0
        order = self._order(epoch)
        group = self.batch_size * self.world_size
        steps, left = divmod(self.n_rows - start, group)
        ride = steps > 0 and 0 < left < self.world_size
        sort = self._sort_windows(order, epoch, start)
        trim = self.lengths is not None
        for step in range(steps):
            first = start + step * group + self.rank * self.batch_size
            sort(self.n_rows if step == steps - 1 else first + self.batch_size)
            rows = order[first : first + self.batch_size]
            if ride and step == steps - 1 and self.rank < left:
                rows = np.append(rows, order[start + steps * group + self.rank])
            yield BatchIndex(epoch, rows.astype(np.int64), trim_padding=trim)
        if left and not ride:
            sort(self.n_rows)
            rest = order[start + steps * group :]
            rows = np.array_split(rest, self.world_size)[self.rank]
            shown = rows if len(rows) else rest[:1]
            yield BatchIndex(epoch, shown.astype(np.int64), filler=not len(rows), trim_padding=trim)

    def _order(self, epoch: int) -> np.ndarray:
        rows = np.arange(self.n_rows, dtype=np.int64 if self.n_rows > np.iinfo(np.int32).max else np.int32)
        if self.shuffle:
            np.random.Generator(np.random.PCG64([self.seed, epoch])).shuffle(rows)
        return rows

    def _sort_windows(self, order: np.ndarray, epoch: int, start: int) -> Callable[[int], None]:
        """A function that puts the rows up to a position into batches by length, in place and as late as possible.

        The result depends on seed, epoch and batch size, and not on the number of processes or on `start`.
        """
        size = _WINDOW_BATCHES * self.batch_size
        done = start // size * size

        def sort_up_to(position: int) -> None:
            nonlocal done
            while self.lengths is not None and done < position:
                window = order[done : done + size]
                whole = len(window) // self.batch_size * self.batch_size  # the rest is the epoch's short last batch
                by_length = np.argsort(self.lengths(window[:whole].astype(np.int64), epoch), kind="stable")
                batches = window[by_length].reshape(-1, self.batch_size)
                if self.shuffle:
                    generator = np.random.Generator(np.random.PCG64([self.seed, epoch, done]))
                    batches = generator.permutation(batches)
                window[:whole] = batches.reshape(-1)
                done += size

        return sort_up_to


class EvalBatchSampler(Sampler[BatchIndex]):
    """Batches for an evaluation: those of a single process, batch b going to process b % W.

    Parameters
    ----------
    rows
        How many rows there are, or which row numbers to evaluate.
    batch_size
        B.
    rank
        This process.
    world_size
        W, number of processes.

    Raises
    ------
    ValueError
        A number makes no sense.
    """

    def __init__(self, rows: int | np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check(batch_size, rank, world_size)
        self.rows = np.arange(rows) if isinstance(rows, int) else np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches of this process; other processes may have one more or less."""
        return len(self._starts())

    def __iter__(self) -> Iterator[BatchIndex]:
        for start in self._starts():
            yield BatchIndex(0, self.rows[start : start + self.batch_size])

    def _starts(self) -> range:
        return range(self.rank * self.batch_size, len(self.rows), self.world_size * self.batch_size)


def evaluation_rows(n_rows: int, max_samples: int | None = None, seed: int = 42) -> np.ndarray:
    """Which rows an evaluation takes: all, or `max_samples` of them, ascending, drawn by `seed` and so always the same.

    Parameters
    ----------
    n_rows
        Rows of the data set.
    max_samples
        How many rows at most; None takes all.
    seed
        Of the choice.

    Returns
    -------
    np.ndarray
        Row numbers, int64.

    Raises
    ------
    ValueError
        `max_samples` is below 1.
    """
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples is {max_samples}, but an evaluation needs a row (--max-val-samples)")
    if max_samples is None or max_samples >= n_rows:
        return np.arange(n_rows)
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(n_rows, max_samples, replace=False))


def _check(batch_size: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but a batch has at least one row (--batch-size)")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} does not exist among {world_size} processes")
